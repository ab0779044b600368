"""The documentation site: ``sphinx-build -W -b html docs build/docs``. It needs no network, and nor do its pages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # builder_scripts is in no package

from builder_scripts.docs.pages import write_pages
from medground_bench import __version__

project = "MedGround-Bench"
author = "The MedGround-Bench maintainers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generated/columns.rst", "generated/keys.rst"]  # parts of formats.md
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name the types
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

write_pages(Path(__file__).parent / "generated")
