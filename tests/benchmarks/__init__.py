"""Tests of the benchmarks, without servers or sockets."""
