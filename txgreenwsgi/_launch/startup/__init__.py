"""The directory that `txgreenwsgi.patched` puts at the front of PYTHONPATH."""
