"""Pairings, deployed probabilities, samples with both labels, random networks, several models."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from helpers import cell_lines, golden

import sc_drugresp as sdr
from sc_drugresp._evaluate.deployed import deploy
from sc_drugresp._evaluate.result import adjust_p_values
from sc_drugresp._evaluate.scores import Truth, score_rows
from sc_drugresp._stats.calibration import fit_calibration
from sc_drugresp._stats.conformal import fit_conformal
from sc_drugresp._stats.folds import leave_group_out

WEIGHTS = golden("tgpt").weights
BARE = {"baselines": False, "n_boot": 0, "n_permutations": 0}


def toy(n_samples=8, **options):
    return sdr.datasets.toy(n_samples=n_samples, cells_per_sample=12, n_genes=80, **options)


def strict(adata, model="pca", metric="auroc", level="cell", key="evaluation"):
    m = adata.uns[key]["metrics"]
    keep = (
        (m["model"] == model) & (m["metric"] == metric) & (m["level"] == level) & (m["protocol"] == "leave_group_out")
    )
    return m[keep & (m["dataset"] == "macro")].iloc[0]


def test_the_score_does_not_depend_on_the_seed_of_the_pairs():
    """Each sensitive sample is held out with each resistant one; single pairings differ, and their range is told."""
    values: dict[int, list[float]] = {1: [], 10: []}
    for seed in range(4):
        adata = toy(8, signal=0.6, sample_effect=1.0)
        for n in values:
            options = sdr.tl.EvaluationOptions(**BARE, n_pairings=n)
            sdr.tl.evaluate(adata, model="hvg", options=options, rng=seed)
            row = strict(adata, "hvg")
            values[n].append(row["value"])
            if n == 10:
                assert row["repeat_low"] < row["repeat_high"]
                assert row["repeat_sd"] > 0
            else:
                assert np.isnan(row["repeat_sd"])
    assert np.ptp(values[10]) < 0.01  # what is left are the inner folds that choose the penalty
    assert np.ptp(values[1]) > 0.01
    frame = sdr.get.metrics_df(adata)
    assert {"repeat_sd", "repeat_low", "repeat_high", "p_adjusted"} <= set(frame)


def test_probabilities_are_those_of_a_calibrator_that_did_not_see_the_fold():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(14), 8)
    y = units % 2
    logit = 6 * (rng.normal(size=14)[units] + rng.normal(size=len(y)) + y - 0.5)  # overconfident
    folds = leave_group_out(y, units)
    prob = 1 / (1 + np.exp(-logit))
    whole = np.array([logit[units == unit].mean() for unit in range(14)])
    found = deploy(prob, logit, whole, y, units, folds)
    fold = folds[2]
    rest = np.setdiff1d(np.arange(len(y)), fold.test)
    fitted = fit_calibration(logit[rest], y[rest], units[rest])
    np.testing.assert_allclose(found.prob[fold.test], fitted.probability(logit[fold.test]))
    called = fit_conformal(logit[rest], y[rest], units[rest], informative=fitted.informative).calls(logit[fold.test])
    np.testing.assert_array_equal(found.calls[fold.test] >= 0, called.any(axis=1))
    assert np.mean((found.prob - y) ** 2) < np.mean((prob - y) ** 2)
    # Labels of the fold have no part in its probabilities.
    turned = y.copy()
    turned[fold.test] = 1 - y[fold.test]
    np.testing.assert_allclose(deploy(prob, logit, whole, turned, units, folds).prob[fold.test], found.prob[fold.test])
    assert set(found.sample_calls) <= {-1, 0, 1}
    for unit in range(14):
        assert len(set(found.sample_calls[units == unit])) == 1


def test_brier_is_that_of_the_deployed_probability():
    """Without signal, raw scores are overconfident (Brier above 0.25); what users get is the prevalence."""
    adata = toy(12, noise_labels="sample", sample_effect=2.0)
    sdr.tl.evaluate(adata, model="hvg", options=sdr.tl.EvaluationOptions(**BARE))
    y = (adata.obs["response"] == "sensitive").to_numpy()
    raw = float(np.mean((adata.obs["evaluation_score"] - y) ** 2))
    assert strict(adata, "hvg", "brier")["value"] < raw
    assert strict(adata, "hvg", "brier")["value"] < 0.27
    assert {"called", "called_wrong"} <= set(adata.uns["evaluation"]["metrics"]["metric"])
    table = sdr.get.calibration_df(adata)
    assert float((table["weight"] * table["predicted"]).sum()) == pytest.approx(
        adata.obs["evaluation_prob"].mean(), abs=0.02
    )


def test_one_sample_with_both_labels_changes_little():
    adata = toy(12, signal=2.0)
    adata.obs["patient"] = adata.obs["sample"]
    first = np.flatnonzero(adata.obs["sample"] == "S01")[:2]
    clean = adata.copy()
    flip = {"sensitive": "resistant", "resistant": "sensitive"}
    adata.obs.loc[adata.obs_names[first], "response"] = adata.obs["response"].iloc[first].map(flip).to_numpy()
    for data in (clean, adata):
        options = sdr.tl.EvaluationOptions(baselines=False, n_boot=50)
        sdr.tl.evaluate(data, model="hvg", group_key="sample", options=options)
    before, after = (data.uns["evaluation"] for data in (clean, adata))
    assert after["verdict"]["code"] == before["verdict"]["code"]
    assert all(" + " in fold for fold in after["folds"].query("protocol == 'leave_group_out'")["fold"])
    assert strict(adata, "hvg")["p_value"] < 0.05
    assert np.isfinite(strict(adata, "hvg")["low"])
    assert strict(adata, "hvg", level="sample")["n_groups"] == 12
    assert any("1 of 12 samples hold both labels (S01)" in text for text in after["verdict"]["cautions"])
    assert not any("both labels" in text for text in before["verdict"]["cautions"])


def test_constant_and_permuted_rows_stand_beside_samples():
    adata = toy(8)
    sdr.tl.evaluate(adata, model="pca", options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=50))
    for name in ("constant", "permuted_labels"):
        assert np.isfinite(strict(adata, name, level="sample")["value"])
    assert strict(adata, "constant", "accuracy", level="sample")["value"] == 0.5
    names = [text.get_text() for text in sdr.pl.metrics(adata, level="sample").get_yticklabels()]
    assert {"Constant", "Permuted labels"} <= set(names)


@pytest.mark.filterwarnings("ignore:Only .* of the counts lie in genes")
def test_a_network_with_random_weights_stands_beside_each_encoder():
    adata = cell_lines(lines=3, plates=3)
    adata.obs["unit"] = adata.obs["cell_line"].astype(str) + " " + adata.obs["sample"].astype(str)
    adata.obs["patient"] = adata.obs["unit"]
    recipe = sdr.tl.Recipe("tgpt", checkpoint=WEIGHTS)
    how = {"group_key": "unit", "split": "group"}
    sdr.tl.evaluate(adata, model=[recipe, "pca"], options=sdr.tl.EvaluationOptions(**BARE), **how)
    result = adata.uns["evaluation"]
    assert list(result["params"]["models"]) == ["tgpt", "pca"]
    kinds = result["metrics"].set_index("model")["kind"]
    assert set(kinds["tgpt.random"]) == {"naive"}
    assert "pca.random" not in kinds
    floor, model = strict(adata, "tgpt.random")["value"], strict(adata, "tgpt")["value"]
    assert floor != model
    said = any("no higher than the same network with random weights" in text for text in result["verdict"]["cautions"])
    assert said == (model <= floor)
    sdr.tl.evaluate(adata, model=recipe, options=sdr.tl.EvaluationOptions(**BARE, random_weights=False), **how)
    assert "tgpt.random" not in set(adata.uns["evaluation"]["metrics"]["model"])
    # A slot cannot be embedded again.
    sdr.tl.embed(adata, "tgpt", checkpoint=WEIGHTS)
    sdr.tl.evaluate(adata, options=sdr.tl.EvaluationOptions(**BARE), **how)
    assert any(
        "no row with random weights beside X_tgpt" in text for text in adata.uns["evaluation"]["verdict"]["cautions"]
    )


@pytest.mark.parametrize("name", ["celllm", "cellplm", "geneformer", "scbert", "scfoundation", "scgpt", "tgpt", "uce"])
def test_weights_are_drawn_again_and_nothing_else(name):
    import torch

    recorded = golden(name)
    encoder = sdr.models.load(name, checkpoint=recorded.weights)
    trained = {key: value.clone() for key, value in encoder.state_dict().items()}
    parameters = {key for key, _ in encoder.named_parameters()}
    state = torch.get_rng_state()
    drawn = {key: value.clone() for key, value in encoder.redraw(3).state_dict().items()}
    assert torch.equal(state, torch.get_rng_state())
    assert any(not torch.equal(drawn[key], trained[key]) for key in parameters)
    for key in trained.keys() - parameters:
        assert torch.equal(drawn[key], trained[key])
    again = sdr.models.load(name, checkpoint=recorded.weights).redraw(3)
    assert all(torch.equal(value, drawn[key]) for key, value in again.state_dict().items())
    values = encoder.embed(recorded.adata, groups=np.zeros(recorded.adata.n_obs, dtype=np.int64))
    assert np.isfinite(values).any()
    assert len(np.unique(values[np.isfinite(values).all(axis=1)], axis=0)) > 1


def test_p_values_of_many_models_are_adjusted():
    import pandas as pd

    truth = Truth(np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.arange(8).astype(str), np.full(8, "a"))
    rng, rows = np.random.default_rng(0), []
    for i in range(3):
        rows += score_rows(f"m{i}", "leave_group_out", truth, rng.random(8), n_boot=0)
    rows += score_rows("qc", "leave_group_out", truth, rng.random(8), kind="naive", n_boot=0)
    frame = pd.DataFrame(rows, columns=[*rows[0], "p_adjusted"] if "p_adjusted" not in rows[0] else None)
    found = (
        adjust_p_values(frame).query("metric == 'auroc' and level == 'cell' and dataset == 'macro'").set_index("model")
    )
    p = found["p_value"].drop("qc").sort_values()
    expected = np.minimum(np.maximum.accumulate(p.to_numpy() * [3, 2, 1]), 1)
    np.testing.assert_allclose(found["p_adjusted"][p.index], expected)
    assert np.isnan(found["p_adjusted"]["qc"])


def test_wrong_numbers_of_pairings():
    for n in (0, 1.5, True):
        with pytest.raises((TypeError, ValueError), match="n_pairings"):
            sdr.tl.EvaluationOptions(n_pairings=n)


def test_repeats_survive_a_file_and_reach_report_and_card(tmp_path):
    adata = toy(12, signal=2.0)
    sdr.tl.evaluate(adata, model="pca", options=sdr.tl.EvaluationOptions(n_boot=20, n_permutations=50, baselines=False))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    card = sdr.get.evaluation_card(again)
    strict_row = next(row for row in card["scores"] if row["protocol"] == "leave_group_out")
    assert strict_row["auroc_cell"]["repeat_low"] <= strict_row["auroc_cell"]["repeat_high"]
    assert "called_cell" in strict_row
    page = sdr.report(again, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "single pairings by sample" in page
    assert "Holm" in page


def test_the_head_that_was_chosen_is_told_with_what_it_promised(tmp_path) -> None:
    adata = sdr.datasets.toy(n_samples=16, cells_per_sample=12, n_genes=100, signal=2.0)
    options = sdr.tl.EvaluationOptions(baselines=False, n_boot=0, n_permutations=0, n_pairings=1)
    sdr.tl.evaluate(adata, model="pca", head="auto", options=options)
    adata.write_h5ad(tmp_path / "a.h5ad")
    heads = ad.read_h5ad(tmp_path / "a.h5ad").uns["evaluation"]["heads"]
    strict = heads[heads["protocol"] == "leave_group_out"]
    assert strict["head"].tolist() == ["logistic", "pseudobulk_lda", "mil"]
    (taken,) = strict[strict["chosen"]].itertuples()
    assert strict["inner_auroc"].between(0.5, 1).all()
    assert taken.optimism == pytest.approx(taken.inner_auroc - taken.nested_auroc)
    assert strict.loc[~strict["chosen"], ["C", "share", "nested_auroc"]].isna().all().all()
