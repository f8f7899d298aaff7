"""Tests of `txgreenwsgi._tls`."""
