"""Tests of the cooperative standard library, on a clock: no sockets, no threads."""
