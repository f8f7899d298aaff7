"""The WSGI gateway (PEP 3333).

Knows greenlets and the terms of HTTP; must never know a transport. Read `gateway.py`
first: it calls the application. The other files define the objects passed to the
application and returned by it.
"""
