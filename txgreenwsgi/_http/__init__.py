"""The HTTP/1.1 wire protocol: bytes only, without Twisted, greenlets or sockets.

`h1` is both directions of a connection. `parser` turns request bytes into the events
of `head`; it uses `target` and `fields` to interpret a head and `chunked` to decode a
chunked body. `writer` encodes response heads; `framing` names the framings of response
bodies.
"""
