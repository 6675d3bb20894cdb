"""Names of samples, groups, drugs, genes, data sets and slots may hold anything: no plot breaks, no page is injected."""

from __future__ import annotations

import html
import io
from functools import cache
from html.parser import HTMLParser
from typing import Any

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from studies import cells, run

import sc_drugresp as sdr

HOSTILE = {
    "formula": "$\\frac{1$",
    "two dollars": "P$x$ 5% #1 a_b^c",
    "backslash": "a\\b\\",
    "tag": "<script>alert(1)</script>",
    "attribute": "\"'><img src=x onerror=alert(1)>",
    "template": "{{ 7 * 7 }}{% raw %}",
    "long": "very long name " * 200,
    "one long word": "x" * 3000,
    "lines": "first\nsecond\r\n\tthird",
    "other scripts": "Zelle\u202eÜß é\u0301 Ω\u200b",
    "empty in the middle": "  a  ",
    "control": "a\x07\x1bb",
}
PLOTS = [name for name in sdr.pl.__all__ if name != "response"]


@cache
def study(kind: str) -> ad.AnnData:
    """The study with a hostile part in every name: one, or all of them by turns (`every`)."""
    adata, parts = cells(), list(HOSTILE.values()) if kind == "every" else [HOSTILE[kind]]
    for turn, key in enumerate(("patient", "sample", "dataset", "clone", "batch")):
        codes, values = pd.factorize(adata.obs[key].astype(str), sort=True)
        adata.obs[key] = [f"{values[code]}{parts[(code + turn) % len(parts)]}" for code in codes]
    adata.var_names = [f"{gene}{parts[i % len(parts)]}" if i < 12 else gene for i, gene in enumerate(adata.var_names)]
    out = run(adata, tuple(f"{parts[(3 * i + 1) % len(parts)]} {i}" for i in range(4)))
    for part in parts:
        out.obsm[f"X_{part}".replace("/", "|")] = out.obsm["X_sdr_pca"]
    return out


class Page(HTMLParser):
    """Collects the tags of a page, and the attributes that run code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def render(drawn: Any) -> bytes:
    buffer = io.BytesIO()
    figure = getattr(drawn, "figure", drawn)
    figure.savefig(buffer, format="png", dpi=40, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:constrained_layout:UserWarning")
@pytest.mark.filterwarnings("ignore:Variable names|Observation names:UserWarning")
@pytest.mark.parametrize("kind", ["every", *(pytest.param(kind, marks=pytest.mark.slow) for kind in HOSTILE)])
def test_every_plot_and_the_report(kind, tmp_path):
    adata = study(kind)
    for name in PLOTS:
        assert render(getattr(sdr.pl, name)(adata)).startswith(b"\x89PNG"), name
    for basis in [key for key in adata.obsm if key.startswith("X_")]:
        render(sdr.pl.response(adata, basis, color=["call", "prob", "ood", "label"]))
    page = sdr.report(adata, tmp_path / "r.html", title="Report " + "".join(HOSTILE.values())).read_text(
        encoding="utf-8"
    )
    found = Page(page)
    assert not found.tags & {"script", "iframe", "object"}
    assert found.handlers == []
    assert html.escape("{{ 7 * 7 }}") in page


def test_a_dollar_is_drawn_as_it_is():
    """On axes of our own and on those of the user, whose other texts keep their formulas."""
    adata = study("every")
    _, ax = plt.subplots()
    ax.text(0, 0, "$x^2$")
    for drawn in (sdr.pl.drug_ranking(adata), sdr.pl.drug_ranking(adata, ax=ax)):
        assert any(letter in drawn.get_title() for letter in "$<{\\")
        assert not drawn.title.get_parse_math()
        assert not any(label.get_parse_math() for label in drawn.get_yticklabels())
    assert ax.texts[0].get_parse_math()
    assert mpl.rcParams["text.parse_math"]
    plt.close("all")


def test_every_plot_writes_plain_text(monkeypatch):
    """By introspection: a new plot is decorated without anybody thinking of it."""
    seen = []
    monkeypatch.setattr(plt, "subplots", lambda *_, **__: seen.append(mpl.rcParams["text.parse_math"]) or 1 / 0)
    for name in sdr.pl.__all__:
        with pytest.raises(ZeroDivisionError):
            getattr(sdr.pl, name)(study("every"))
    assert seen == [False] * len(sdr.pl.__all__)
