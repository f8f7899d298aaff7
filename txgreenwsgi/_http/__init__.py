"""HTTP/1.1 on the wire: bytes only, without Twisted, greenlets or sockets.

`h1` is a connection with both directions. Requests are read by `parser`, which turns
bytes into the events of `head`; it uses `target` and `fields` to interpret a head and
`chunked` to find the end of a chunked body. Responses are encoded by `writer` and
delimited as `framing` decides.
"""
