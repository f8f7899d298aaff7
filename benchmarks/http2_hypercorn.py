"""The configuration of hypercorn for the HTTP/2 benchmark."""

from __future__ import annotations

h2_max_concurrent_streams = 1000
h2_max_inbound_frame_size = 2**14
# Its defense against rapid resets would end the connection of the benchmark.
keep_alive_max_requests = 10**9
wsgi_max_body_size = 2**30
