"""What the processes that grade are forked from: it imports what they need, and does nothing else.

So a class on many cores imports PyTorch once, and a process that had to be ended is replaced at
once.
"""

import sys

# Python 3.11 searches the folder where this runs, which may hold a torch.py, before all others.
sys.path[:] = [folder for folder in sys.path if folder]

from lab_grader.running.workers import prepare  # noqa: E402

prepare()  # before the libraries that look at the environment

from lab_grader import grade  # noqa: E402, F401
from lab_grader.running import execute  # noqa: E402, F401
