"""What the lessons import: DoRA's mathematics, its layers, and the checks of the exercises."""
