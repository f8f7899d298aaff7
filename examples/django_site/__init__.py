"""A small Django site: accounts, posts, files, and a live page.

`README.md` in this directory explains how to run it. The views are ordinary and
synchronous; the package knows Django, and four of its files know txgreenwsgi.
"""
