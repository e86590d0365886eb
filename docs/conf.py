"""Settings of the documentation site; `sphinx-build -W docs build/docs` builds it."""

import sys
from pathlib import Path

import genprior

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project, author = "genprior", "the genprior developers"
version = release = genprior.__version__
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
    "registry_pages",
]
exclude_patterns = ["_build", "**/README.txt"]
suppress_warnings = ["config.cache"]
default_role = "code"
root_doc = "index"

myst_heading_anchors = 3
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Warns", "returns_style")]
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"

html_theme = "pydata_sphinx_theme"
html_title = f"genprior {release}"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery", "../examples/lecture"],
    "gallery_dirs": ["gallery", "gallery_lecture"],
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1,
    "image_scrapers": ("matplotlib",),
    "matplotlib_animations": False,
}
