"""Tests of the cooperative primitives, on a clock: no sockets."""
