"""TLS by options: certificates, their renewal, client certificates.

pyOpenSSL and cryptography are optional, and imported when the first TLS listener is
made: `options`, `errors`, `files` and `stored` must not need them.
"""
