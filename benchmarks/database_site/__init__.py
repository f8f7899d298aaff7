"""The Django site of the examples, set up for each server as is best for it.

`database_pages.py` measures it. The package knows Django and the site; it must
never know which servers there are.
"""
