"""`tl.train_response` with tuned encoders: what is written, what a saved model gives, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from helpers import cell_lines, golden

import sc_drugresp as sdr

MODELS = ["celllm", "cellplm", "geneformer", "scbert", "scfoundation", "scgpt", "tgpt", "uce"]
TUNING = {"epochs": 1, "rank": 2, "batch_size": 8}
FINE_TUNING = {field.name for field in fields(sdr.tl.FineTuning)}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Only .* of the counts lie in genes"),
    pytest.mark.filterwarnings("ignore:Tuning did not improve"),
    pytest.mark.filterwarnings("ignore:All calls are 'uncertain'"),
]


def weights(name: str) -> Path:
    return golden(name).weights


@pytest.fixture(scope="module")
def lines() -> ad.AnnData:
    """Five cells of each of five lines, two of them sensitive."""
    return cell_lines()


def train(adata: ad.AnnData, name: str = "tgpt", **options):
    tuning = {key: options.pop(key) for key in list(options) if key in FINE_TUNING}
    options = {"mode": "lora", "group_key": "cell_line", "checkpoint": weights(name), **options}
    return sdr.tl.train_response(adata, model=name, tuning=sdr.tl.FineTuning(**TUNING | tuning), **options)


def predicted(adata: ad.AnnData, model, name: str = "tgpt") -> np.ndarray:
    out = sdr.tl.predict_response(adata, model, checkpoint=weights(name), copy=True)
    return out.obs["predicted_response_prob"].to_numpy()


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "scgpt" else pytest.mark.slow) for n in MODELS])
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_saved_model_predicts_the_same_in_a_new_process(lines, tmp_path, name, mode):
    model = train(lines.copy(), name, mode=mode)
    model.save(tmp_path / "model")
    lines.write_h5ad(tmp_path / "cells.h5ad")
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert ({"adapter_config.json", "adapter_model.safetensors"} <= files) == (mode == "lora")
    assert ("encoder.safetensors" in files) == (mode == "full")
    code = (
        "import warnings; warnings.simplefilter('ignore'); import sys, anndata as ad, numpy as np, sc_drugresp as sdr;"
        "sdr.settings.device = 'cpu'; a = ad.read_h5ad(sys.argv[1]);"
        "sdr.tl.predict_response(a, sys.argv[2], checkpoint=sys.argv[4]);"
        "np.save(sys.argv[3], a.obs['predicted_response_prob'].to_numpy())"
    )
    args = [str(path) for path in (tmp_path / "cells.h5ad", tmp_path / "model", tmp_path / "prob.npy", weights(name))]
    subprocess.run([sys.executable, "-c", code, *args], check=True)
    np.testing.assert_allclose(np.load(args[2]), predicted(lines, model, name), atol=1e-6)


def test_history_and_comparison_are_recorded(lines, tmp_path):
    adata = lines.copy()
    model = train(adata, epochs=2)
    found = adata.uns["train_response"]
    assert list(found["history"].columns) == ["epoch", "loss", "held_out_loss", "held_out_auroc"]
    assert list(found["history"]["epoch"]) == [1, 2]
    assert list(found["comparison"]["model"]) == ["frozen", "tuned"]
    assert model.info["trainable"] < model.info["parameters"]
    assert len(model.info["adapted"]) >= 12
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.uns["train_response"]["history"], found["history"])
    assert list(adata.obs) == list(lines.obs)


def test_merged_model_predicts_what_its_adapter_does(lines):
    apart, merged = (train(lines.copy(), merge=merge) for merge in (False, True))
    assert merged.adapter is None
    np.testing.assert_allclose(predicted(lines, merged), predicted(lines, apart), atol=1e-5)


def test_few_shot_continues_a_model_trained_elsewhere(lines, tmp_path):
    first = train(lines[lines.obs["cell_line"] != "line4"].copy())
    first.save(tmp_path / "first")
    start = sdr.models.ResponseModel.load(tmp_path / "first")
    second = train(lines.copy(), start=start, rank=4)
    assert [row["model"] for row in second.info["comparison"]] == ["start", "frozen", "tuned"]
    assert second.adapter["config"]["r"] == 2  # the adapter goes on, with its rank
    second.save(tmp_path / "second")
    loaded = sdr.models.ResponseModel.load(tmp_path / "second")
    np.testing.assert_allclose(predicted(lines, loaded), predicted(lines, second), atol=1e-6)
    other = replace(start, representation=start.representation | {"checkpoint": {"sha256": "0" * 64}})
    with pytest.raises(ValueError, match="trained on another checkpoint"):
        train(lines.copy(), start=other)


def test_tuned_models_are_fused(lines):
    models = [train(lines.copy(), rng=seed) for seed in (0, 1)]
    out = sdr.tl.predict_response(lines, models, checkpoint=weights("tgpt"), copy=True)
    parts = np.array([predicted(lines, model) for model in models])
    np.testing.assert_allclose(out.obs["predicted_response_disagreement"], parts.std(axis=0), atol=1e-6)
    expected = 1 / (1 + np.exp(-np.log(parts / (1 - parts)).mean(axis=0)))
    np.testing.assert_allclose(out.obs["predicted_response_prob"], expected, rtol=1e-4)


def test_model_of_another_checkpoint_is_refused(lines):
    model = train(lines.copy())
    other = replace(model, representation=model.representation | {"checkpoint": {"sha256": "0" * 64}})
    with pytest.raises(ValueError, match="trained on another checkpoint"):
        predicted(lines, other)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"mode": "loar"}, ValueError, "`mode` must be one of"),
        ({"head": "svm"}, ValueError, "`head` must be one of"),
        ({"model": None}, ValueError, "tunes a foundation model"),
        ({"model": "pca"}, ValueError, "tunes a foundation model"),
        ({"use_rep": "X_other"}, ValueError, "not `use_rep`"),
        ({"epoch": 3}, TypeError, "Unknown option 'epoch'"),
        ({"epochs": 3}, TypeError, r"tuning=sc_drugresp\.tl\.FineTuning\(epochs=\.\.\.\)"),
        ({"tuning": {"epochs": 3}}, TypeError, "`tuning` must be a FineTuning or None, found a dict"),
        ({"mode": "frozen", "tuning": sdr.tl.FineTuning()}, TypeError, "the mode is 'frozen'"),
        ({"label_key": "response_left"}, KeyError, "not found"),
        ({"label_key": "only"}, ValueError, "no 'resistant' cell"),
        ({"label_key": "other"}, ValueError, "harmonize_labels"),
        ({"group_key": "condition"}, ValueError, "at least 2 samples of each class"),
        ({"label_key": "single"}, ValueError, "at least 2 samples of each class"),
        ({}, FileNotFoundError, "tgpt"),
    ],
)
def test_wrong_use_is_told_before_anything_is_loaded(lines, monkeypatch, changes, error, words):
    adata = lines.copy()
    sensitive = adata.obs["response"] == "sensitive"
    adata.obs["only"] = "sensitive"
    adata.obs["other"] = np.where(sensitive, "yes", "no")
    adata.obs["single"] = adata.obs["response"].astype(object).where(adata.obs["cell_line"] != "line1", None)
    adata.obs["condition"] = np.where(sensitive, "a", "b")
    if changes:
        monkeypatch.setattr(sdr.models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    options = {"model": "tgpt", "mode": "lora", "group_key": "cell_line", **changes}
    with pytest.raises(error, match=words):
        sdr.tl.train_response(adata, **options)
    assert "train_response" not in adata.uns


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "`epochs` must be a whole number of at least 1"),
        ({"precision": "half"}, "`precision` must be one of"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a number above 0"),
    ],
)
def test_wrong_settings_of_tuning_are_refused_when_they_are_made(settings, words):
    with pytest.raises(ValueError, match=words):
        sdr.tl.FineTuning(**settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "scgpt"}, "Continue with the same model"),
        ({"head": "mlp"}, "Use the same head"),
        ({"max_length": 20}, "same model and options"),
        ({"mode": "frozen"}, "`start` continues a tuned model"),
    ],
)
def test_start_that_does_not_fit_is_refused(lines, changes, words):
    start = train(lines.copy())
    options = {"model": "tgpt", "mode": "lora", "group_key": "cell_line", "start": start, **changes}
    with pytest.raises(ValueError, match=words):
        sdr.tl.train_response(lines.copy(), **options)


def test_the_embedding_of_a_tuned_model_is_kept(lines):
    model = train(lines.copy())
    out = sdr.tl.predict_response(lines, model, checkpoint=weights("tgpt"), copy=True)
    plain = sdr.models.load("tgpt", checkpoint=weights("tgpt"))
    assert out.obsm["X_tgpt_lora"].shape == (lines.n_obs, plain.dim)
    np.testing.assert_allclose(model.logit(out.obsm["X_tgpt_lora"]), model.head.logit(out.obsm["X_tgpt_lora"]))
    assert not np.allclose(out.obsm["X_tgpt_lora"], plain.embed(lines), atol=1e-6)
    from sc_drugresp._design.given_away import fitted_elsewhere

    assert fitted_elsewhere("X_tgpt_lora").startswith("tuned")
