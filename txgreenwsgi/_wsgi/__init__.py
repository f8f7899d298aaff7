"""PEP 3333. Knows greenlets and the terms of HTTP, but no transports.

Read `gateway.py` first: it calls the application. The other files define the objects
passed to the application and returned by it.
"""
