"""One suite of requests and responses that runs over every transport.

It uses only the public names of txgreenwsgi. Each module has the cases of one
topic; `harness.on_every_transport` makes a test class from them for each transport.
"""
