"""The Django site of the examples, configured for each server and driver.

`database_pages.py` measures it. This package knows Django and the site; it must
never know the servers.
"""
