"""Plots whose texts may be of any script."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# For what matplotlib's own font lacks, the first of these that is installed: East Asian scripts on
# Linux, Windows and macOS.
_FALLBACKS = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
)


def save(figure: Figure, path: Path) -> None:
    """Writes a plot as PNG; a character that no font holds is a box, without a warning.

    Raises:
        OSError: `path` cannot be written.
    """
    from matplotlib import font_manager  # slow to import
    from matplotlib.text import Text

    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *[name for name in _FALLBACKS if name in installed][:1]]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(path, dpi=110)
