"""Sphinx configuration."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

info = metadata("sc-drugresp")
project, version = "sc_drugresp", info["Version"]
release, author = version, "The sc_drugresp developers"
copyright = f"{datetime.now(tz=UTC):%Y}, {author}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "scanpydoc.elegant_typehints",  # after sphinx_autodoc_typehints: `Returns` may hold prose and definition lists
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "model_pages",
]

default_role = "literal"  # docstrings mark code with single backticks
autosummary_generate = True
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = True
napoleon_use_param = True
napoleon_custom_sections = [("Params", "Parameters")]
typehints_defaults = "braces"
always_use_bars_union = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image", "substitution"]
myst_heading_anchors = 3
nb_execution_mode = "off"
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "**.ipynb_checkpoints", "api/generated/.keep"]
templates_path = ["_templates"]

# Links into other projects need their inventories; without a network the build must still pass.
intersphinx_timeout = 10
intersphinx_mapping = (
    {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/en/latest/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
    if "links" in tags  # noqa: F821 (`sphinx-build -t links`)
    else {}
)
suppress_warnings = [
    "myst.header",
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
    "sphinx_autodoc_typehints.local_function",
]

html_theme = "sphinx_book_theme"
html_static_path, html_css_files = ["_static"], ["custom.css"]
html_title = project
html_theme_options = {
    "show_navbar_depth": 1,
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
html_show_sourcelink = False
