"""Tests of Django support: isolation of tasks, and the database backends."""
