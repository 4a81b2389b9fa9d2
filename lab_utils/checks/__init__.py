"""The checks of the exercises: one module a lesson, each finding names the mistake."""
