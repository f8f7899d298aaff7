"""Tests of the development reload, without processes."""
