"""Development reload: files that change, and the worker that is restarted for them.

`sources.py` runs in the worker and lists the files that it has loaded; `watching.py`
and `reloader.py` run in the master; `failure_page.py` is the application of a worker
whose own application does not start.
"""
