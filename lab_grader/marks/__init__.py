"""What comes of it: the gradebook, pages for students, tables."""
