"""Tests of txgreenwsgi._threads: calls, threads, the gate and the choice of routes."""
