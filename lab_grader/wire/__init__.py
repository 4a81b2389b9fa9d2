"""What goes between the grader and a student's process: values, calls, and both ends."""
