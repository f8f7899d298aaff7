"""`python -m txgreenwsgi`: the command `txgreenwsgi`.

It must never know options or subcommands.
"""

from __future__ import annotations

import sys

from txgreenwsgi._command import main

if __name__ == "__main__":
    sys.exit(main())
