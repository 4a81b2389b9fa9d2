"""Grade a class on top of nbgrader: sandboxed, in parallel, and so that a rerun goes on."""
