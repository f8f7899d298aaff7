"""`python -m tests.frameworks`: run Flask's and Werkzeug's own test suites."""

from __future__ import annotations

import argparse

from .own_tests import HOW, KNOWN, PROJECTS, Outcome, run, table


def main() -> None:
    """Run the suites named on the command line and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.frameworks", description=__doc__
    )
    parser.add_argument("projects", nargs="*", help=f"of {', '.join(PROJECTS)}")
    parser.add_argument("--how", action="append", choices=HOW[1:])
    parser.add_argument("--why", action="store_true", help="print the failures")
    options = parser.parse_args()
    if unknown := set(options.projects) - set(PROJECTS):
        parser.error(
            f"unknown project {', '.join(sorted(unknown))}; give some of {PROJECTS}"
        )
    outcomes: dict[tuple[str, str], Outcome] = {}
    for project in options.projects or PROJECTS:
        outcomes[project, "plain"] = plain = run(project, "plain")
        for how in options.how or HOW[1:]:
            if how == "live" and project != "werkzeug":
                continue
            outcomes[project, how] = outcome = run(project, how)
            expected = plain.passed if how != "live" else set(outcome.tests)
            lost = expected - outcome.passed
            print(f"{project}, {how}: {len(lost)} lost", flush=True)
            for test in sorted(lost):
                print(f"  {test}: {KNOWN[how].get(test, 'UNEXPECTED')}")
                if options.why:
                    print(outcome.tests.get(test, ("", "was not run"))[1])
    print(table(outcomes))


if __name__ == "__main__":
    main()
