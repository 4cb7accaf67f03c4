"""``python -m seqloom`` is the command ``seqloom``."""

import sys

from seqloom.cli import main

if __name__ == "__main__":
    sys.exit(main())
