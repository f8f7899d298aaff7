"""HTTP/1.1 on the wire: bytes only, without Twisted, greenlets or sockets.

`parser` turns bytes into events. It uses `target` and `fields` to interpret a
request head and `chunked` to find the end of a chunked body. The event types are in
`head`. `writer` encodes response heads.
"""
