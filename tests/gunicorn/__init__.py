"""Tests of the parts of the gunicorn worker class, without processes."""
