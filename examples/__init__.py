"""Applications to run, read and copy; each is also run by a test.

From the root of a checkout::

    twistd -n greenwsgi --app examples.hello:app

An example knows the public names of txgreenwsgi and its own framework, and must
never use a name that begins with an underscore.
"""
