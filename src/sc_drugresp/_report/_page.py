"""The page: a template that escapes every value, and the tables and figures that go into it."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_DPI, _CSS_DPI = 160, 96
_LONGEST_TABLE = 60


def render(**values: Any) -> str:
    """The whole page; no scripts, no fonts, nothing from the network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["reader"] = reader
    return environment.get_template("page.html.jinja").render(**values)


def table(frame: pd.DataFrame, *, gray: Sequence[bool] = ()) -> dict[str, Any]:
    """A frame for the template: only its first rows, numbers to the right, some rows in gray."""
    shown = frame.head(_LONGEST_TABLE)
    return {
        "columns": [str(name) for name in shown.columns],
        "right": [kind.kind in "iuf" if isinstance(kind, np.dtype) else False for kind in shown.dtypes],
        "rows": list(zip([*gray, *[False] * len(shown)], shown.itertuples(index=False))),
        "more": len(frame) - len(shown),
    }


def reader(value: Any) -> str:
    """A value for a reader: three digits, nothing for what is missing."""
    if isinstance(value, float | np.floating):
        return f"{value:.3g}" if np.isfinite(value) else ""
    if isinstance(value, np.ndarray | list | tuple):
        return ", ".join(reader(item) for item in value)
    return "" if value is None else str(value)


def figure(artist: Any, caption: str) -> dict[str, Any]:
    """A matplotlib axes or figure as an inline image of its natural size; the figure is closed."""
    import matplotlib.pyplot as plt

    drawn = getattr(artist, "figure", artist)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(drawn)
    png = buffer.getvalue()
    (width,) = struct.unpack(">I", png[16:20])  # of the header
    return {
        "source": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": round(width * _CSS_DPI / _DPI),
        "caption": caption,
    }
