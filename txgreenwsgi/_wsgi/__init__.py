"""PEP 3333. It knows greenlets and HTTP's words, not transports.

Read `gateway.py` first: it calls one application once. What it hands to the
application and takes from it is in the other files.
"""
