"""`python -m tests.stdlib`: measure, and print a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .compare import MODULES, load, run_module, save, table


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.stdlib", description=__doc__)
    parser.add_argument("modules", nargs="*", help="test modules; default: all")
    parser.add_argument(
        "--flavour",
        action="append",
        metavar="NAME[=PYTHON]",
        help="none, txgreenwsgi, gevent, eventlet; with the interpreter that has it",
    )
    parser.add_argument("--keep", type=Path, help="a file to read and write results")
    parser.add_argument("--why", action="store_true", help="show what fails, and how")
    parser.add_argument("--hang", type=float, default=60.0, metavar="SECONDS")
    said = parser.parse_args()
    results = load(said.keep) if said.keep else {}
    unknown = set(said.modules) - set(MODULES)
    if unknown:
        parser.error(f"no such module here: {', '.join(sorted(unknown))}")
    results.setdefault("none", {})
    for flavour in said.flavour or ["none", "txgreenwsgi"]:
        name, _, python = flavour.partition("=")
        for module in said.modules or MODULES:
            outcome = run_module(name, module, python or sys.executable, said.hang)
            results.setdefault(name, {})[module] = outcome
            print(
                f"{name} {module}: {len(outcome.passed)} passed, "
                f"{len(outcome.failed)} failed, {len(outcome.skipped)} skipped, "
                f"{outcome.seconds:.0f} s",
                flush=True,
            )
            if said.why and name != "none":
                plain = results["none"].get(module)
                for test, detail in outcome.failed.items():
                    if plain is None or test in plain.passed:
                        print(f"--- {test}\n{detail}")
            if said.keep:
                save(said.keep, results)
    print(table(results))


if __name__ == "__main__":
    main()
