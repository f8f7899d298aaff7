"""`python -m tests.stdlib`: run the tests and print a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .compare import MODULES, load, run_module, save, table


def main() -> None:
    """Run the modules and flavours given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.stdlib", description=__doc__)
    parser.add_argument("modules", nargs="*", help="test modules; default: all")
    parser.add_argument(
        "--flavour",
        action="append",
        metavar="NAME[=PYTHON]",
        help="none, txgreenwsgi, gevent or eventlet, and the interpreter that has it",
    )
    parser.add_argument("--keep", type=Path, help="file to load and save results")
    parser.add_argument("--why", action="store_true", help="show failures")
    parser.add_argument("--hang", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    results = load(options.keep) if options.keep else {}
    unknown = set(options.modules) - set(MODULES)
    if unknown:
        parser.error(f"unknown modules: {', '.join(sorted(unknown))}")
    results.setdefault("none", {})
    for flavour in options.flavour or ["none", "txgreenwsgi"]:
        name, _, python = flavour.partition("=")
        for module in options.modules or MODULES:
            outcome = run_module(name, module, python or sys.executable, options.hang)
            results.setdefault(name, {})[module] = outcome
            print(
                f"{name} {module}: {len(outcome.passed)} passed, "
                f"{len(outcome.failed)} failed, {len(outcome.skipped)} skipped, "
                f"{outcome.seconds:.0f} s",
                flush=True,
            )
            if options.why and name != "none":
                plain = results["none"].get(module)
                for test, detail in outcome.failed.items():
                    if plain is None or test in plain.passed:
                        print(f"--- {test}\n{detail}")
            if options.keep:
                save(options.keep, results)
    print(table(results))


if __name__ == "__main__":
    main()
