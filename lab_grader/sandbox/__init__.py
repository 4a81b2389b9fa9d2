"""Where a kernel runs: bubblewrap, the process that forks kernels, what they do not see."""
