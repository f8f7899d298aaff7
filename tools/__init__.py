"""Checks of this repository's own rules, run by `.ci/run`."""
