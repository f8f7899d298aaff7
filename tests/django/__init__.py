"""Tests of Django on this server: what each task has for itself, and the backends."""
