"""Applications from PyPI, served and driven by their own clients.

`python -m tools.applications klaus` creates a virtual environment, installs klaus into
it, serves it on a free port, runs its client and reports. `table.py` lists the
applications. Each has a module with three functions: `prepare` creates its data,
`make_app` returns the WSGI application, `drive` is the client.
"""
