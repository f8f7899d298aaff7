"""Example applications. A test runs each of them.

From the root of a checkout::

    twistd -n greenwsgi --app examples.hello:app

An example uses the public API of txgreenwsgi and its own framework. It must never use
a name that begins with an underscore.
"""
