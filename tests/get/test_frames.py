"""Frames from every container, and the names that readers see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp.get._names import interval_text, model_name, model_names, protocol_name
from sc_drugresp.models._registry import registry

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
FRAMES = (
    "calibration_df", "leakage_gap_df", "metrics_df", "predictions_df", "risk_coverage_df", "roc_df", "samples_df",
    "split_design_df",
)  # fmt: skip


@pytest.fixture(scope="module")
def done():
    adata = sdr.datasets.toy(n_samples=8, cells_per_sample=15, n_genes=100, signal=1.0)
    sdr.tl.embed(adata, "pca", n_comps=5)
    sdr.tl.predict_response(adata, group_key="sample")
    sdr.tl.aggregate(adata, "sample")
    sdr.tl.evaluate(
        adata, use_rep="X_sdr_pca", options=sdr.tl.EvaluationOptions(baselines=False, n_boot=20, n_permutations=0)
    )
    return adata


@pytest.fixture(scope="module", params=["h5ad", "zarr"])
def lazy(request, done, tmp_path_factory):
    from anndata.experimental import read_lazy

    path = tmp_path_factory.mktemp("lazy") / f"a.{request.param}"
    getattr(done, f"write_{request.param}")(path)
    return read_lazy(path)


@pytest.mark.parametrize("name", FRAMES)
def test_lazy_objects_give_the_same_frames(done, lazy, name) -> None:
    found, expected = getattr(sdr.get, name)(lazy), getattr(sdr.get, name)(done)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_categorical=False, check_names=False)


def test_lazy_objects_give_the_same_card(done, lazy) -> None:
    assert sdr.get.evaluation_card(lazy) == sdr.get.evaluation_card(done)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_labels_of_the_whole_mudata_are_seen(done) -> None:
    import mudata

    rna = done.copy()
    labels = rna.obs.pop("response")
    mdata = mudata.MuData({"rna": rna})
    mdata.obs["response"] = labels.reindex(mdata.obs_names)
    for name in ("predictions_df", "samples_df"):
        found, expected = getattr(sdr.get, name)(mdata)["label"], getattr(sdr.get, name)(done)["label"]
        assert found.astype(str).tolist() == expected.astype(str).tolist()
    np.testing.assert_allclose(sdr.get.calibration_df(mdata)["observed"], sdr.get.calibration_df(done)["observed"])


def test_other_things_under_our_names_are_not_read() -> None:
    adata = sdr.datasets.toy(n_samples=2, cells_per_sample=5, n_genes=50)
    adata.uns["predicted_response"] = "mine"
    with pytest.raises(KeyError, match=r"not written by tl\.predict_response"):
        sdr.get.samples_df(adata)
    adata.obs["predicted_response"] = "mine"
    with pytest.raises(KeyError, match=r"tl\.predict_response"):
        sdr.get.predictions_df(adata)


def test_every_model_has_a_display_name() -> None:
    for spec in registry().values():
        assert model_name(spec.name) == model_name(f"X_{spec.slot}") == spec.title
    assert model_name("scgpt.lora") == "scGPT, LoRA"
    assert model_name("scgpt.pan-cancer") == model_name("X_scgpt_pan_cancer") == "scGPT (pan-cancer)"
    assert model_name("scgpt.pan-cancer.full") == "scGPT (pan-cancer), fully fine-tuned"
    assert model_name("X_my_embedding") == "X_my_embedding"


def test_every_naive_baseline_has_a_display_name() -> None:
    from sc_drugresp._evaluate.naive import NAIVE

    assert all(model_name(name) != name for name in NAIVE)


def test_two_rows_never_look_the_same() -> None:
    assert model_names(["pca", "X_sdr_pca", "hvg"]) == {
        "pca": "PCA (pca)",
        "X_sdr_pca": "PCA (X_sdr_pca)",
        "hvg": "Highly variable genes",
    }


def test_protocols_say_what_was_held_out() -> None:
    assert protocol_name("leave_group_out", {"level": "patient", "level_key": "cell_line"}) == "held-out cell lines"
    assert protocol_name("leave_group_out", {"level": "sample", "level_key": "orig.ident"}) == "held-out samples"
    assert protocol_name("pooled", {}) == "random split of cells"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.26e-15, 1.0, "0.00 to 1.00, uninformative"),
        (0.625, 0.9149, "0.62 to 0.91"),
        (np.nan, 1.0, ""),
    ],
)
def test_intervals_have_two_digits(low, high, text) -> None:
    assert interval_text(low, high) == text
