"""What the checks ask of a student's object: the only code of a check that runs in its process.

A question is a function `ask_something(student, *arguments)` of a module here. It does all that
touches the student's object and gives back what it saw, as arrays and plain values; it computes
nothing that an answer could copy. When a class is graded, the text of the module travels to the
student's process with each question, and what is expected stays with the grader. So a module of
questions imports only the standard library, NumPy, PyTorch, `student_code`, and those modules of
the lab that no exercise which it asks about forbids.
"""
