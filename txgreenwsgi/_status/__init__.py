"""The status page, and the text of `txgreenwsgi top`.

Both show a `SnapshotInformation` of `txgreenwsgi._control.interface`. `history` adds
rates, `page` and `terminal` draw, `feed` asks the server while a page is open,
`application` is the WSGI application of the page. This package must never know workers,
or how requests are served.
"""
