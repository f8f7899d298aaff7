"""The tests of `_serving`: one request, whatever carries it."""
