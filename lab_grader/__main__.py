"""`python -m lab_grader`: starts the command line."""

import sys

if __name__ == "__main__":  # not in workers, which are started from this file
    try:
        from lab_grader.command_line import main
    except KeyboardInterrupt:  # this import takes a while
        sys.exit("lab_grader: stopped; run it again.")
    main()
