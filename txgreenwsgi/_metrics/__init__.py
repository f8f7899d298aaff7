"""Metrics: counters of one process in memory that other processes may read.

`families` has the names and the layout, `meter` counts requests, `sampler` reads the
state of the server now and then, `exposition` and `application` make the page. This
room knows the server of one process. It must never know workers or options.
"""
