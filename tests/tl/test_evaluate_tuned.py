"""Tuned encoders under the folds of an evaluation."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from helpers import cell_lines, golden
from scipy.special import expit

import sc_drugresp as sdr
from sc_drugresp._response.fit import fit_head
from sc_drugresp._response.tune import features as tuned_features
from sc_drugresp._response.tune.finetune import embed_by_sample, finetune
from sc_drugresp._response.tune.options import FineTuning
from sc_drugresp._stats.folds import leave_group_out

WEIGHTS = golden("tgpt").weights


def quick(**changes):
    """No naive baselines, intervals or p-values."""
    return sdr.tl.EvaluationOptions(**{"baselines": False, "n_boot": 0, "n_permutations": 0} | changes)


TUNING = {"epochs": 1, "rank": 2, "learning_rate": 3e-3, "batch_size": 16}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Only .* of the counts lie in genes"),
]


@pytest.fixture(scope="module")
def lines() -> ad.AnnData:
    """Five cells of each of nine units: three lines on three plates, taken as if they were nine patients."""
    adata = cell_lines(lines=3, plates=3)
    adata.obs["unit"] = adata.obs["patient"] = (
        adata.obs["cell_line"].astype(str) + " " + adata.obs["sample"].astype(str)
    )
    return adata


def recipe(mode: str = "lora", **tuning) -> sdr.tl.Recipe:
    return sdr.tl.Recipe("tgpt", mode, checkpoint=WEIGHTS, tuning=FineTuning(**TUNING | tuning))


def scores(adata: ad.AnnData, model: str, protocol: str = "leave_group_out") -> np.ndarray:
    samples = adata.uns["evaluation"]["samples"]
    return samples[(samples["model"] == model) & (samples["protocol"] == protocol)].set_index("sample")["score"]


def test_tuned_row_stands_beside_the_frozen_one_and_never_saw_its_samples(lines):
    adata = lines.copy()
    sdr.tl.evaluate(adata, model=recipe(), group_key="unit", split="group", options=quick(n_pairings=1))
    result = adata.uns["evaluation"]
    assert list(result["params"]["models"]) == ["tgpt.lora", "tgpt"]
    assert "Recipe(model='tgpt', mode='lora'" in result["command"]
    assert "rank=2" in result["command"]
    folds = result["folds"]
    assert (folds[folds["protocol"] == "leave_group_out"]["shared_units"] == 0).all()

    # The same by hand for samples that a single fold tested: tuned, and frozen, on all others.
    unit = adata.obs["unit"].to_numpy(dtype=str)
    encoder = sdr.models.load("tgpt", checkpoint=WEIGHTS)
    tokens, y = encoder.tokenize(adata), (adata.obs["response"] == "sensitive").to_numpy().astype(int)
    splits = leave_group_out(y, unit, rng=0)
    times = np.bincount(np.concatenate([fold.test for fold in splits]), minlength=len(y))
    fold = next(fold for fold in splits if (times[fold.test] == 1).any())
    x, train, once = encoder.embed_tokens(tokens), fold.train, fold.test[times[fold.test] == 1]
    frozen = expit(fit_head("logistic", x[train], y[train], unit[train]).logit(x[once])).mean()
    assert scores(adata, "tgpt")[unit[once[0]]] == pytest.approx(frozen, abs=1e-5)
    options = FineTuning(**TUNING)
    tuned = finetune(
        encoder, tokens.take(train), y[train], unit[train], mode="lora", head="logistic", options=options, seed=0
    )
    logits = tuned.head.logit(embed_by_sample(encoder, tokens.take(once), unit[once]))
    np.testing.assert_allclose(adata.obs["evaluation_score"].iloc[once], expit(logits), atol=1e-5)


def test_zero_and_few_shot_scores_of_a_tuned_model(lines):
    adata = lines.copy()
    adata.obs["dataset"] = np.where(adata.obs["sample"] == adata.obs["sample"].iloc[0], "target", "source")
    del adata.obs["cell_line"]  # the same lines are in both, and would not be learned from
    sdr.tl.evaluate(
        adata,
        model=recipe(force=True),
        group_key="unit",
        dataset_key="dataset",
        protocol="cross_dataset",
        options=quick(few_shot=(1,)),
    )
    metrics = adata.uns["evaluation"]["metrics"]
    shots = metrics[(metrics["protocol"] == "few_shot") & (metrics["metric"] == "auroc")]
    for model in ("tgpt.lora", "tgpt"):
        assert set(shots[shots["model"] == model]["n_labeled"]) == {0, 1}
        assert "cross_dataset" in set(metrics[metrics["model"] == model]["protocol"])


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"mode": "loar"}, ValueError, "`mode` must be one of"),
        ({"model": "pca"}, ValueError, "tunes a foundation model"),
        ({"options": {"epoch": 3}}, TypeError, "Unknown option 'epoch'"),
        ({"options": {"epochs": 3}}, TypeError, r"tuning=sc_drugresp\.tl\.FineTuning\(epochs=\.\.\.\)"),
        ({"mode": "frozen", "tuning": FineTuning()}, TypeError, "the mode is 'frozen'"),
    ],
)
def test_wrong_recipes_are_refused_when_they_are_made(wanted, error, words):
    with pytest.raises(error, match=words):
        sdr.tl.Recipe(**{"model": "tgpt", "mode": "lora", **wanted})


def test_refits_of_a_tuned_model_are_refused_before_anything_is_loaded(lines, monkeypatch):
    monkeypatch.setattr(sdr.models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(ValueError, match="n_refits=0"):
        sdr.tl.evaluate(lines, model=recipe(), group_key="unit", options=quick(n_refits=5))
    assert "evaluation" not in lines.uns


def test_folds_with_too_few_samples_are_refused_before_training(lines, monkeypatch):
    units = [lines.obs["unit"][lines.obs["response"] == name].unique()[:2] for name in ("sensitive", "resistant")]
    adata = lines[lines.obs["unit"].isin(np.concatenate(units)).to_numpy()].copy()
    monkeypatch.setattr(tuned_features, "finetune", lambda *_, **__: pytest.fail("an encoder was tuned"))
    with pytest.raises(ValueError, match=r"learn from in fold .*force=True"):
        sdr.tl.evaluate(adata, model=recipe("full"), group_key="unit", split="group", options=quick(allow_leaks=True))


def test_options_reach_the_encoder_of_a_frozen_row(lines):
    rows = []
    for options in ({}, {"max_length": 10}):
        adata = lines.copy()
        model = sdr.tl.Recipe("tgpt", checkpoint=WEIGHTS, options=options)
        sdr.tl.evaluate(adata, model=model, group_key="unit", split="group", options=quick())
        rows.append(scores(adata, "tgpt"))
    assert (rows[0] != rows[1]).any()
