"""`python -m lab_grader`: starts the command line."""

import os
import sys

if __name__ == "__main__":  # not in workers, which are started from this file
    # A random.py or torch.py in the folder where this is called, or in one of PYTHONPATH, must not
    # be imported in place of the real one: these folders are searched last, here and in workers.
    named = ["", *os.environ.pop("PYTHONPATH", "").split(os.pathsep)]
    last = {os.path.abspath(folder) for folder in named}
    sys.path.sort(key=lambda folder: os.path.abspath(folder) in last)
    try:
        from lab_grader.command_line import main
    except KeyboardInterrupt:  # this import takes a while
        sys.exit("lab_grader: stopped; run it again.")
    main()
