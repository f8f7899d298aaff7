"""Sphinx configuration of the documentation.

Build: `python -m sphinx -n -W --keep-going docs docs/_build`. No step needs the
network.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "txgreenwsgi"
author = "The txgreenwsgi developers"
release = version = installed_version("txgreenwsgi")
html_title = f"txgreenwsgi {version}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "repository_pages",
    "settings_reference",
]
exclude_patterns = ["_build"]

# The same anchors as on code hosts, so that a link works in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

highlight_language = "none"  # of blocks that name no language

# Docstrings put code into single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_rtype = False
napoleon_use_ivar = True
# With -n, every reference has to resolve. Excluded: types in signatures. Those of
# Twisted and of the standard library resolve only with inventories, which are on
# the network, and type variables never do.
nitpick_ignore_regex = [(r"py:(class|exc|obj)", r".*")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
templates_path: list[str] = []
