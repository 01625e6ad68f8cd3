"""``python -m gsfl_tune``."""

import sys

from gsfl_tune.cli import main

if __name__ == "__main__":
    sys.exit(main())
