"""HTML without a template engine: escaped text, tables, inline figures."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.meta, figcaption { color: #666; font-size: .88rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .6rem 0; } .wide table { width: max-content; max-width: none; } th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; max-width: 26rem; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #eee; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; }
tr.naive td { color: #888; } figure { margin: .8rem 0; } img { max-width: 100%; height: auto; }
.box { border-left: .35rem solid #999; background: #f6f6f6; padding: .6rem 1rem; margin: .8rem 0; }
.box.ok { border-color: #009E73; } .box.warn { border-color: #D55E00; } pre { white-space: pre-wrap; background: #f6f6f6; padding: .7rem; font-size: .85rem; }
nav a { margin-right: 1rem; font-size: .9rem; } dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; }
"""


def page(title: str, subtitle: str, sections: list[tuple[str, str]]) -> str:
    """A whole page; no scripts, no fonts, nothing from the network."""
    anchors = [f"s{i}" for i in range(len(sections))]
    nav = " ".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, (name, _) in zip(anchors, sections))
    body = "\n".join(
        f'<section id="{anchor}"><h2>{escape(name)}</h2>\n{html}</section>'
        for anchor, (name, html) in zip(anchors, sections)
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="meta">{escape(subtitle)}</p><nav>{nav}</nav>\n{body}\n</body></html>\n'
    )


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def box(text: str, kind: str = "") -> str:
    """A marked statement; `kind` is `ok` or `warn`."""
    return f'<div class="box {kind}">{escape(text)}</div>\n'


def bullets(items: list[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>\n" if items else ""


def definitions(items: dict[str, Any]) -> str:
    """Names and values."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(cell(v))}</dd>" for k, v in items.items()) + "</dl>\n"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>\n"


def table(frame: pd.DataFrame, *, index: bool = False, naive: np.ndarray | None = None, most: int = 60) -> str:
    """A frame as a table; rows of `naive` are gray; only the first `most` rows."""
    frame = frame.reset_index() if index else frame
    numeric = [np.issubdtype(kind, np.number) if isinstance(kind, np.dtype) else False for kind in frame.dtypes]
    head = "".join(f'<th class="{"num" if n else ""}">{escape(str(c))}</th>' for c, n in zip(frame.columns, numeric))
    rows = []
    for i, values in enumerate(frame.head(most).itertuples(index=False)):
        cells = "".join(f'<td class="{"num" if n else ""}">{escape(cell(v))}</td>' for v, n in zip(values, numeric))
        rows.append(f'<tr class="{"naive" if naive is not None and bool(naive[i]) else ""}">{cells}</tr>')
    more = f'<p class="meta">{len(frame) - most} more rows</p>' if len(frame) > most else ""
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{more}\n'
    )


def cell(value: Any) -> str:
    """A value for a reader: three digits, empty for missing."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.3g}" if 0 < abs(number) < 1e-3 else f"{number:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, np.ndarray | list | tuple):
        return ", ".join(cell(item) for item in value)
    return str(value)


def figure(artist: Any, caption: str, alt: str) -> str:
    """A matplotlib axes or figure as an inline image; the figure is closed."""
    import matplotlib.pyplot as plt

    drawn = artist if hasattr(artist, "savefig") else artist.figure
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(drawn)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{code}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )
