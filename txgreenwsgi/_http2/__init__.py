"""HTTP/2 without I/O: frames to events, responses to frames (RFC 9113).

`connection.py` first (one connection, on the library h2), then `requests.py` (header
lists to request heads), `hpack_codec.py` (header compression), `budgets.py` (limits
on frames that cost work and bring nothing). h2 is optional: this room is imported when
HTTP/2 is switched on. It must never know transports, clocks or tasks.
"""
