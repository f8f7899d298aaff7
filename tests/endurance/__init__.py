"""Tests of long runs and many clients: memory, leaked objects, limits."""
