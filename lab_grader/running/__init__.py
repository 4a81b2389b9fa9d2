"""A submission is executed: job, kernel, the workers that share the work, results that are kept."""
