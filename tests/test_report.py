"""The report: one file, no network, complete or absent."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

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


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*covered.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning"),
]


def words(path) -> str:
    """The text of a page, with single spaces."""
    tags = _Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    return " ".join(" ".join(tags.text).split())


@pytest.fixture(scope="module")
def done():
    adata = sdr.datasets.toy(n_samples=12, cells_per_sample=20, n_genes=200, signal=2.0)
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"malignant": "<b>malignant</b>"})
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.predict_response(adata, group_key="sample")
    sdr.tl.aggregate(adata, "sample", clone_key="cell_type")
    sdr.tl.evaluate(adata, use_rep="X_sdr_pca", options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=20))
    return adata


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
    for expected in ("P(sensitive)", "Pseudobulk + ridge", "random split of cells", "Limits", "Samples"):
        assert expected in words(path)


def test_card_is_json_with_naive_baselines(done, tmp_path) -> None:
    sdr.report(done, tmp_path / "r.html")
    card = json.loads((tmp_path / "r.card.json").read_text())
    assert card == sdr.get.evaluation_card(done)
    assert {"constant", "qc", "pseudobulk_ridge"} <= {row["name"] for row in card["naive_baselines"]}


def test_nothing_to_report() -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        sdr.report(sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50))


def test_interrupted_write_leaves_the_old_page(done, tmp_path, monkeypatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        sdr.report(done, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_samples_come_before_cells_and_baselines_are_described(done, tmp_path) -> None:
    text = words(sdr.report(done, tmp_path / "r.html"))
    assert text.index("AUROC by sample") < text.index("AUROC by cell")
    assert "Gray rows are naive baselines" in text
    assert "HVG + boosting” do learn from the labels" in text
    assert "know nothing" not in text
    assert "sdr pca" not in text
    assert not re.search(r"\d\.?\d*e-\d\d", text)


def test_results_of_another_name_are_reported(done, tmp_path) -> None:
    adata = done.copy()
    for key, name in (("evaluation", "strict"), ("predicted_response", "first"), ("train_response", "fit")):
        adata.uns[name] = adata.uns.pop(key)
    adata.obs = adata.obs.rename(columns=lambda name: re.sub("^predicted_response", "first", name)).rename(
        columns=lambda name: re.sub("^evaluation", "strict", name)
    )
    with pytest.raises(ValueError, match="evaluation_key"):
        sdr.report(adata, tmp_path / "r.html")
    keys = {"evaluation_key": "strict", "prediction_key": "first", "training_key": "fit"}
    renamed, default = sdr.report(adata, tmp_path / "r.html", **keys), sdr.report(done, tmp_path / "d.html")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.sub(time, "", words(renamed)) == re.sub(time, "", words(default))
    with pytest.raises(KeyError, match=r"No evaluation 'other'.*tl\.evaluate"):
        sdr.report(adata, tmp_path / "r.html", evaluation_key="other")


def test_lazy_objects_can_be_reported(done, tmp_path) -> None:
    from anndata.experimental import read_lazy

    done.write_zarr(tmp_path / "a.zarr")
    text = words(sdr.report(read_lazy(tmp_path / "a.zarr"), tmp_path / "r.html"))
    assert "Held-out scores" in text
    assert "naive baselines" in text


def test_things_that_are_not_ours_are_left_out(done, tmp_path) -> None:
    adata = done.copy()
    adata.uns["evaluation"] = "a note"
    adata.uns["state_control"] = ["a", "list"]
    text = words(sdr.report(adata, tmp_path / "r.html"))
    assert "No evaluation was run" in text
    assert "State or sensitivity" not in text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_verdict_limits_and_methods_say_the_same(done, tmp_path) -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=30, n_genes=60)
    adata.obs["response"] = ["sensitive", "resistant"] * 30
    adata.obs["sample"] = adata.obs["patient"] = adata.obs["batch"] = "A"
    sdr.tl.evaluate(adata, model="pca", options=sdr.tl.EvaluationOptions(baselines=False, n_boot=20, n_permutations=0))
    assert adata.uns["evaluation"]["verdict"]["code"] == "UNDERPOWERED"
    text = words(sdr.report(adata, tmp_path / "r.html"))
    assert text.count("No performance estimate for new samples is possible") == 2  # in the verdict and in the limits
    assert "Performance was estimated on" not in text
    assert "were held out" not in text
    assert "conformal" not in text
    assert "calibrated" not in text
    strict = words(sdr.report(done, tmp_path / "s.html"))
    assert "No performance estimate" not in strict
    assert "did not score" not in strict


def test_a_prediction_that_was_not_evaluated_is_named(done, tmp_path) -> None:
    adata = done.copy()
    params = dict(adata.uns["evaluation"]["params"])
    adata.uns["evaluation"] = dict(adata.uns["evaluation"], params=params | {"models": ["X_sdr_pca"]})
    adata.uns["predicted_response"]["models"]["0"]["use_rep"] = "X_scgpt"
    assert "Predictions use scGPT, which this evaluation did not score." in words(
        sdr.report(adata, tmp_path / "r.html")
    )


def test_no_embedding_no_figure(done, tmp_path) -> None:
    adata = done.copy()
    del adata.obsm["X_sdr_pca"]
    assert "P(sensitive)" in words(sdr.report(adata, tmp_path / "r.html"))
