"""The wire: HTTP/1.1 as bytes, without Twisted, greenlets or sockets.

A request is read by `parser` (bytes to events), which asks `target` and `fields`
what a head means and `chunked` where a body ends; `head` has the events.
"""
