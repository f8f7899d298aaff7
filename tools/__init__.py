"""Checks of this repository's own rules, run by `.ci/run`, and trials by hand."""
