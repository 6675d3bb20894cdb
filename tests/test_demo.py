"""The demonstration: which data it takes, what it hides, what it writes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp import demo


def test_generated_data_when_nothing_is_at_hand():
    adata, source = demo.choose()
    assert "toy" in adata.uns
    assert source.startswith("generated data with a known answer, because no real data at hand")
    assert "offline" in source


def test_generated_data_when_asked():
    assert demo.choose("toy")[1].endswith("because generated data were asked for")
    first, second = demo.choose("toy", rng=1)[0], demo.choose("toy", rng=2)[0]
    assert (first.X != second.X).nnz > 0


def test_real_data_come_first(tmp_path):
    sdr.datasets.toy(2, 5).write_h5ad(tmp_path / "GSE149214_PC9_erlotinib.h5ad")
    sdr.datasets.toy(2, 6).write_h5ad(tmp_path / "mine.h5ad")
    with sdr.settings.override(data_dir=tmp_path):
        adata, source = demo.choose()
    assert adata.n_obs == 10
    assert source.startswith("real data: GSE149214_PC9_erlotinib from")


def test_own_file_without_labels_is_passed_over(tmp_path):
    unlabeled = sdr.datasets.toy(2, 5)
    del unlabeled.obs["response"]
    unlabeled.write_h5ad(tmp_path / "a.h5ad")
    sdr.datasets.toy(2, 6).write_h5ad(tmp_path / "b.h5ad")
    with sdr.settings.override(data_dir=tmp_path):
        assert demo.choose()[1].startswith("real data: b from")


def test_a_path_is_read(tmp_path):
    sdr.datasets.toy(2, 5).write_h5ad(tmp_path / "mine.h5ad")
    assert demo.choose(str(tmp_path / "mine.h5ad"))[0].n_obs == 10


def test_unit_is_the_strictest_column_with_pure_groups():
    adata = sdr.datasets.toy(8, 5, timepoints=True)
    assert demo._group_key(adata) == "patient"
    adata.obs["patient"] = "P1"
    assert demo._group_key(adata) == "sample"


def test_one_group_is_hidden():
    adata = sdr.datasets.toy(8, 5)
    group = demo._hide_one_group(adata, "sample")
    hidden = adata.obs["response"].isna()
    assert set(adata.obs.loc[hidden, "sample"]) == {group}


def test_nothing_is_hidden_where_labels_are_scarce():
    adata = sdr.datasets.toy(4, 5)
    assert demo._hide_one_group(adata, "sample") == "no group"
    assert adata.obs["response"].notna().all()


def test_large_data_are_thinned(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(demo, "MAX_CELLS", 100)
    monkeypatch.setattr(demo, "choose", lambda name, rng: (sdr.datasets.toy(4, 50, 40, rng=rng), "a test"))
    monkeypatch.setattr(demo, "run", lambda adata, out, rng: seen.append(adata) or tmp_path / "r.html")
    assert demo.main(["--out", str(tmp_path)]) == 0
    assert seen[0].n_obs == 100
    assert capsys.readouterr().out.startswith("Data: a test")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # a few samples are too few, and it says so
def test_the_whole_chain_on_generated_data(tmp_path, capsys):
    adata = sdr.datasets.toy(10, 20, 150, signal=2.0)
    out = tmp_path / "out"
    page = demo.run(adata, out, rng=0)
    written = {path.name for path in out.iterdir()}
    assert written >= {f"{plot}.png" for plot in demo.PLOTS} | {"findings.csv", "model", "drug_heatmap.png"}
    groups = pd.read_csv(out / "without_labels.csv")
    assert groups["P"].between(0, 1).all()
    assert len(pd.read_csv(out / "drug_ranking.csv")) > 2 * 200
    printed = capsys.readouterr().out
    assert "1. answering without labels" in printed
    assert len(pd.read_csv(out / "samples.csv")) == 10
    back = ad.read_h5ad(out / "predicted.h5ad")
    prob = back.obs["predicted_response_prob"].to_numpy()
    assert ((prob >= 0) & (prob <= 1)).all()
    hidden = back.obs["response"].isna().to_numpy()
    assert hidden.sum() == 20
    malignant = (back.obs["cell_type"] == "malignant").to_numpy()
    sensitive = (back.obs["response_known"] == "sensitive").to_numpy()
    assert np.mean((prob[hidden & malignant] > 0.5) == sensitive[hidden & malignant]) > 0.6
    curve = sdr.get.roc_df(back)  # of all labels, also those that were hidden after the evaluation
    area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
    stated = sdr.get.metrics_df(back, "auroc", protocol="leave_group_out", level="cell")["value"].iloc[0]
    assert area == pytest.approx(stated, abs=1e-9)
    text = page.read_text(encoding="utf-8")
    assert "P(sensitive)" in text
    assert 'src="http' not in text
    model = sdr.models.ResponseModel.load(out / "model")
    assert model is not None
    assert "verdict" in printed
