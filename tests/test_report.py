"""The report: one file, no network, complete or absent."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

mpl.use("Agg")

import sc_drugresp as sdr


class _Tags(HTMLParser):
    void = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def done():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=20, n_genes=200, signal=2.0)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"malignant": "<b>malignant</b>"})
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.predict_response(adata, group_key="sample")
    sdr.tl.aggregate(adata, "sample", clone_key="cell_type")
    sdr.tl.evaluate(adata, use_rep="X_sdr_pca", options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=20))
    return adata


@pytest.mark.filterwarnings("ignore:.*covered.*:UserWarning")
def test_page_is_well_formed_self_contained_and_escaped(done, tmp_path) -> None:
    path = sdr.report(done, tmp_path / "r.html")
    text = path.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not [tag for tag, _ in tags.seen if tag in ("script", "link", "iframe")]
    sources = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert len(sources) >= 6
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(attrs.get("alt") for tag, attrs in tags.seen if tag == "img")
    assert not re.search(r'(?:src|href)="https?://', text)
    assert "<b>malignant</b>" not in text
    assert path.stat().st_size < 5_000_000
    words = " ".join(tags.text)
    for expected in ("P(sensitive)", "pseudobulk ridge", "random split of cells", "Limits", "Samples"):
        assert expected in words


@pytest.mark.filterwarnings("ignore:.*covered.*:UserWarning")
def test_card_is_json_with_floors(done, tmp_path) -> None:
    sdr.report(done, tmp_path / "r.html")
    card = json.loads((tmp_path / "r.card.json").read_text())
    assert card == sdr.get.evaluation_card(done)
    assert {"constant", "qc", "pseudobulk_ridge"} <= {row["name"] for row in card["floors"]}


def test_nothing_to_report() -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        sdr.report(sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50))


@pytest.mark.filterwarnings("ignore:.*covered.*:UserWarning")
def test_interrupted_write_leaves_the_old_page(done, tmp_path, monkeypatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full_disk)
    with pytest.raises(OSError, match="No space"):
        sdr.report(done, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
