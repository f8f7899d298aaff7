"""Worker processes and their master.

`master.py` decides, `process.py` runs one worker, `service.py` is the service of the
master; `tenancy.py` is the worker's side of the link between them. The interface of the
master for other parts of the command is in `interface.py`.
"""
