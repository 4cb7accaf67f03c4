"""The front door on the command line: one file a verb, imported when it is called.

Exit codes: 0 ok, 1 a finding is false, 2 user error, 3 data or extra absent, 130 saved on Ctrl-C.
"""

from seqloom.cli._main import main

__all__ = ["main"]
