"""Run one of the applications, or all: see `--help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .runner import run_application
from .table import APPLICATIONS


def main() -> int:
    """Run the applications that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.applications",
        description="Serve an application from PyPI and drive it with its client.",
    )
    parser.add_argument("names", nargs="*", help="applications; by default all")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    parser.add_argument(
        "--environment",
        type=Path,
        help="virtual environment to use, or to create and keep (default: a temporary "
        "one for each application)",
    )
    parser.add_argument(
        "--no-install",
        action="store_true",
        help="use the environment as it is; needs --environment",
    )
    parser.add_argument(
        "--log", type=Path, help="file to append the log of the server to"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        help="further option of `twistd greenwsgi`, as --option=--patch=none",
    )
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(APPLICATIONS))
        return 0
    unknown = [name for name in arguments.names if name not in APPLICATIONS]
    if arguments.no_install and arguments.environment is None:
        parser.error("--no-install needs --environment")
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; --list prints the names")
    failed = [
        name
        for name in arguments.names or APPLICATIONS
        if not run_application(
            name,
            arguments.environment,
            arguments.log,
            arguments.option,
            not arguments.no_install,
        )
    ]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
