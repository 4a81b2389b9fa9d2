"""What comes in: the course, a submission as it will be graded, and which cells it needs."""
