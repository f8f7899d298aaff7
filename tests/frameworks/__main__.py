"""`python -m tests.frameworks`: run Flask's and Werkzeug's own tests, print a table."""

from __future__ import annotations

import argparse

from .own_tests import HOW, KNOWN, PROJECTS, Outcome, run, table


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.frameworks", description=__doc__
    )
    parser.add_argument("projects", nargs="*", help=f"of {', '.join(PROJECTS)}")
    parser.add_argument("--how", action="append", choices=HOW[1:])
    parser.add_argument("--why", action="store_true", help="show what fails, and how")
    said = parser.parse_args()
    if unknown := set(said.projects) - set(PROJECTS):
        parser.error(f"no such project here: {', '.join(sorted(unknown))}")
    outcomes: dict[tuple[str, str], Outcome] = {}
    for project in said.projects or PROJECTS:
        outcomes[project, "plain"] = plain = run(project, "plain")
        for how in said.how or HOW[1:]:
            if how == "live" and project != "werkzeug":
                continue
            outcomes[project, how] = outcome = run(project, how)
            expected = plain.passed if how != "live" else set(outcome.tests)
            lost = expected - outcome.passed
            print(f"{project}, {how}: {len(lost)} lost", flush=True)
            for test in sorted(lost):
                print(f"  {test}: {KNOWN[how].get(test, 'NO REASON IS KNOWN')}")
                if said.why:
                    print(outcome.tests.get(test, ("", "was not run"))[1])
    print(table(outcomes))


if __name__ == "__main__":
    main()
