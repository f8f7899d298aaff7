"""A small real site in Django: accounts, posts, files, and a page that is live.

`README.md` in this folder says how to run it. The views are ordinary and
synchronous; the package knows Django, and in four of its files txgreenwsgi.
"""
