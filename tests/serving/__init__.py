"""Tests of `_serving`: one request, independent of the transport."""
