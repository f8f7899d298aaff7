"""TLS by options: certificates, their renewal, client certificates.

Everything here but `options` and `errors` needs pyOpenSSL, which is optional: it is
imported when the first TLS listener is made.
"""
