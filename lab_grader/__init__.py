"""Grade a class on top of nbgrader: sandboxed, in parallel, and resumable."""
