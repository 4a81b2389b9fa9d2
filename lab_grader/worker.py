"""What the processes that grade are forked from: it imports what they need, and does nothing else.

So a class on many cores imports PyTorch once, and a process that had to be ended is replaced at
once.
"""

from lab_grader.running.workers import prepare

prepare()  # before the libraries that look at the environment

from lab_grader import grade  # noqa: E402, F401
from lab_grader.running import execute  # noqa: E402, F401
