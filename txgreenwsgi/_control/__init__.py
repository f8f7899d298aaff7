"""The control socket: questions and commands from the same user to a running server.

A UNIX socket with mode 0600 in a directory that no other user may write to. Each
request and each answer is one line of JSON. There is no command that runs code.

`paths.py` chooses and finds the socket, `server.py` answers, `client.py` asks,
`interface.py` is what a server implements. This package must never know workers or
requests.
"""
