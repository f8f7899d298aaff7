"""One suite of requests and responses that runs over every transport.

It uses the public names of txgreenwsgi only. Each module holds the cases of one
topic; `harness.on_every_transport` makes a test class of them for each transport.
"""
