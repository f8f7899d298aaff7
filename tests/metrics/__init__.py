"""Tests of the metrics of one process."""
