"""How Sphinx builds the documentation; see CONTRIBUTING.md for the command."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # flaxrnn and configs of this checkout

project = "flaxrnn"
html_title = "flaxrnn"
html_theme = "furo"  # its fonts are those of the reader's system: no page asks for another site
html_show_copyright = False
html_show_sphinx = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "code"  # of `names` in docstrings
napoleon_use_ivar = True
nitpicky = False

# What Flax adds to the constructor of every module.
_OF_FLAX = re.compile(r", parent:? ?[^=]*=\s*<[^>]*>, name:? ?[^=]*=\s*None")


def setup(app: Any) -> None:
    """Leaves out of signatures what Flax adds to them."""

    def plain(
        app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, to: Any
    ) -> Any:
        return (_OF_FLAX.sub("", signature), to) if signature else None

    app.connect("autodoc-process-signature", plain)
