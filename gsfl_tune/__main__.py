"""``python -m gsfl_tune``."""

import sys

from gsfl_tune.cli import main

if __name__ == "__main__":
    code = main()
    # An interrupt that passed through an `exec` of a library leaves a mark in Python, and `python
    # -m` then ends as if by SIGINT, whatever the code. The next `exec` takes the mark away.
    exec("")
    sys.exit(code)
