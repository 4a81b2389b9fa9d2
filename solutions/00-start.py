# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3.1.2 DoRA: start here
#
# LoRA adapts a large model by adding a small trained update to weights that stay frozen. DoRA splits
# each of these weights into a **magnitude** and a **direction**, lets the update turn the direction,
# and trains the magnitude separately. In this lab you write both from scratch, see what they do to a
# weight, and find out by a fair experiment which of the two ends with the lower loss.

# %% jupyter={"source_hidden": true}
# The picture: one weight vector, and what LoRA and DoRA make of it.
from lab_utils import plots

plots.show(
    plots.sketch(),
    "The same weight vector w0 and the same update u, twice. Left, LoRA: w', the sum of the two, is "
    "turned and longer than w0. Right, DoRA: w' is turned by the same angle and as long as w0.",
)

# %% [markdown]
# The same weight vector `w0` and the same update `u`: with LoRA the new weight `w'` is their sum, turned
# and longer. With DoRA it is turned by the same angle, and how long it becomes is trained separately;
# here it ends on the dotted circle, as long as `w0`.

# %% [markdown]
# ## The lessons, and how far you are
#
# Click a lesson or an exercise to open it. To see what has changed since the table was made, click
# into it and press Shift+Enter; it reads the saved notebooks (Ctrl+S saves one).

# %% jupyter={"source_hidden": true}
# The map of the lessons: run it again for your progress.
from lab_utils import progress

progress.overview("dora")

# %% [markdown]
# Lessons 01 to 04 are the core; 05 to 07 are more practice and a challenge. No lesson needs your answers
# from another: if you are stuck in one, go on with the next.
#
# ## How a lesson works
#
# - **Run** a lesson cell by cell: Shift+Enter. A grey bar with dots is a folded cell that prepares or
#   draws something; run it like the others, and click the dots to read it. *Run All* stops at the
#   first check that fails and leaves you at the end: scroll up to it. Every other cell runs without a
#   solved exercise.
# - **Write** your code where it says `# YOUR CODE HERE`, delete the `raise NotImplementedError()`
#   below it, and run the cell.
# - **Check** it: the cell that follows says what it looked at, which points you have, and, if
#   something is wrong, what was expected, what was found and, where it can tell, which mistake it is.
# - **Validate**, in the toolbar, runs the whole notebook afresh and lists the checks that fail.
#   Grading repeats the checks with other sizes, seeds and dtypes: code that is right in general
#   passes both.
#
# ## Where help is
#
# - Each exercise has folded **hints**, and a failed check names the **section** that explains it.
# - The folder `lab_utils` is the textbook in code: `decomposition.py` and `layers.py` are the
#   mathematics and the two layers. Reading them is fine. An answer that calls, wraps or subclasses
#   them earns no points.
# - If a cell does not finish: *Kernel → Interrupt Kernel*. If a name is not defined (`checks`,
#   `torch`, or one that you wrote), the kernel does not have it, or no longer: *Kernel → Restart Kernel*,
#   then run the cells from the top.
# - Keep the names of the files: the links between lessons lead to them. The table above also finds a
#   lesson that was renamed.
# - If the window is narrow: Ctrl+B hides the list of files, and a figure that does not fit scrolls.
# - Anything else: ask your instructor, and bring what the check said.
