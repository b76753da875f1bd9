"""How the documentation is built: `python -m sphinx -W -b html docs docs/_build/html`.

The tutorial is run in every build. Nothing needs the network, except for links into other projects' documentation,
which SCANPY_SCVI_DOCS_ONLINE=1 switches on.
"""

from __future__ import annotations

import os
import warnings

import scanpy_scvi

# sphinx-autodoc-typehints calls what Sphinx 10 will remove; it says so once for every type that it formats
warnings.filterwarnings("ignore", message=".*set_application.* is deprecated")

os.environ.pop("MPLBACKEND", None)  # it would keep the notebook's pictures out of the page

project = "scanpy_scvi"
author = "the scanpy_scvi developers"
copyright = f"2026, {author}"
version = release = scanpy_scvi.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "scanpydoc.definition_list_typed_field",
    "scanpydoc.elegant_typehints",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "literal"  # `adata.X` in a docstring is code, as in Markdown

# Pages in Markdown, notebooks run at every build
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 300
nb_merge_streams = True

# API pages, one for each public function
autosummary_generate = True
autodoc_typehints = "none"  # sphinx_autodoc_typehints writes them beside the parameters
napoleon_google_docstring = False
napoleon_use_rtype = False
typehints_defaults = "braces"
always_use_bars_union = True

# Prompts are not copied
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_theme_options = {
    "repository_url": "https://github.com/scanpy-scvi/scanpy_scvi",
    "use_repository_button": True,
    "path_to_docs": "docs",
    "show_toc_level": 2,
}

online = os.environ.get("SCANPY_SCVI_DOCS_ONLINE") == "1"
links = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.readthedocs.io/en/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
intersphinx_mapping = {name: (url, None) for name, url in links.items()} if online else {}
