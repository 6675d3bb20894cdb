"""Heads over samples, and the one choice behind folds, final head and calibration."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import sc_drugresp as sdr
from sc_drugresp._design.verdict import Verdict
from sc_drugresp._response import crossfit, fit
from sc_drugresp._response.cells import TrainingCells, strict_folds
from sc_drugresp._response.crossfit import centered, cross_validate
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._response.fit import choose_setting, fit_head, settings_for, try_settings
from sc_drugresp._response.fitters import HeadSetting, fit_setting
from sc_drugresp._response.heads import head_arrays, head_from_arrays, loudest, pool
from sc_drugresp._response.selection import concordance
from sc_drugresp._response.train import train_frozen
from sc_drugresp._stats.calibration import fit_calibration
from sc_drugresp._stats.folds import Fold

OVER_SAMPLES = ("logistic", "pseudobulk_lda", "mil")


def patients(
    n: int, seed: int, *, sensitive: int | None = None, effect: float = 0.0, share: float = 1.0, sign: int = 1,
    strong: float = 0.0, between: float = 0.3, dim: int = 12, cells: int = 30,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Cells of patients that differ: everywhere a little, and along three directions by `strong`.

    The response moves a `share` of the cells of one class along one direction; the directions are those of every seed.
    """
    world, rng = np.random.default_rng(0), np.random.default_rng([seed, 1])
    shared, response = world.normal(size=(3, dim)), np.zeros(dim)
    response[:4] = 1
    label = (np.arange(n) < (n // 2 if sensitive is None else sensitive)).astype(np.int64)
    groups = np.repeat(np.arange(n), cells)
    center = strong * rng.normal(size=(n, 3)) @ shared + between * rng.normal(size=(n, dim))
    x = center[groups] + rng.normal(size=(len(groups), dim))
    moved = (label[groups] == (sign > 0)) & (rng.random(len(groups)) < share)
    return x + effect * np.outer(moved, response), label[groups], groups


def held_out(head, data, **options):
    x, y, groups = data
    return cross_validate(FixedFeatures("x", x), y, groups, strict_folds(y, groups, rng=0), head=head, **options)


def auroc_of_new_patients(head, seed, **world) -> float:
    x, y, groups = patients(16, seed, **world)
    new, _, names = patients(80, 1000 + seed, **world)
    return roc_auc_score(np.arange(80) < 40, fit_head(head, x, y, groups).sample_logit(new, names)[1])


def test_the_loudest_cells_of_each_group_count() -> None:
    logit = np.array([1.0, 5.0, 3.0, np.nan, 2.0, -1.0, -7.0])
    index = np.array([0, 0, 0, 0, 0, 1, 2])
    assert loudest(logit, index, 0.5).tolist() == [False, True, True, False, False, True, True]
    assert loudest(logit, index, -0.25).tolist() == [True, False, False, False, False, True, True]
    names, score = pool(logit, np.array(["c", "c", "c", "c", "c", "a", "b"]), 0.5)
    assert (names.tolist(), score.tolist()) == (["a", "b", "c"], [-1.0, -7.0, 4.0])
    assert np.isnan(pool(np.array([np.nan, 1.0]), np.array([0, 1]))[1]).tolist() == [True, False]


def test_discriminant_looks_past_directions_in_which_patients_differ() -> None:
    """A direction that patients share is learned from their means; a regression over cells cannot know it."""
    world = {"effect": 0.8, "strong": 1.0, "between": 0.05}
    found = {h: np.mean([auroc_of_new_patients(h, s, **world) for s in range(3)]) for h in OVER_SAMPLES}
    assert found["pseudobulk_lda"] > 0.95
    assert found["pseudobulk_lda"] > max(found["logistic"], found["mil"]) + 0.05


@pytest.mark.parametrize("sign", [1, -1])
def test_top_share_finds_a_fifth_of_the_cells_on_either_side(sign) -> None:
    world = {"effect": 2.0, "share": 0.2, "sign": sign, "between": 0.4}
    found = {h: np.mean([auroc_of_new_patients(h, s, **world) for s in range(3)]) for h in OVER_SAMPLES}
    assert found["mil"] > 0.9
    assert found["mil"] > max(found["logistic"], found["pseudobulk_lda"]) + 0.1
    x, y, groups = patients(16, 0, **world)
    assert fit_head("mil", x, y, groups).share == sign * 0.2


def test_discriminant_of_a_sample_is_that_of_its_mean() -> None:
    x, y, groups = patients(10, 0, effect=1.0)
    head = fit_setting(HeadSetting("pseudobulk_lda"), x, y, groups)
    means = np.array([x[groups == name].mean(axis=0) for name in range(10)])
    np.testing.assert_allclose(head.sample_logit(x, groups)[1], head.logit(means), atol=1e-9)
    two = groups < 1
    two |= groups == 9  # one sample of each class
    alone = fit_setting(HeadSetting("pseudobulk_lda"), x[two], y[two], groups[two])
    scores = alone.sample_logit(x[two], groups[two])[1]
    assert scores[0] > 0 > scores[1]


@pytest.mark.parametrize("kind", OVER_SAMPLES)
def test_heads_survive_their_arrays_and_are_the_same_every_time(kind) -> None:
    x, y, groups = patients(12, 3, effect=1.0, dim=150)  # wide: the projection is part of the head
    head = fit_head(kind, x, y, groups)
    again = head_from_arrays(head.kind, head_arrays(head))
    assert again.kind == kind
    np.testing.assert_array_equal(head.sample_logit(x, groups)[1], again.sample_logit(x, groups)[1])
    np.testing.assert_array_equal(head.logit(x), fit_head(kind, x, y, groups).logit(x))
    x[:30] = np.nan
    names, score = fit_head(kind, x, y, groups).sample_logit(x, groups)
    assert np.isnan(score).tolist() == [name == 0 for name in names]


def test_samples_are_scored_by_heads_that_did_not_see_them() -> None:
    x, y, groups = patients(8, 0, effect=1.0)
    names = np.array([f"P{i}" for i in range(8)])[groups]
    folds = strict_folds(y, names, rng=0)
    out = cross_validate(FixedFeatures("x", x), y, names, folds, head="mil")
    expected = np.full(8, np.nan)
    for fold in folds:
        head = fit_setting(out.setting, x[fold.train], y[fold.train], names[fold.train])
        found, score = head.sample_logit(x[fold.test], names[fold.test])
        expected[np.searchsorted(out.samples, found)] = score
    assert out.samples.tolist() == [f"P{i}" for i in range(8)]
    np.testing.assert_allclose(out.sample_logit, expected)
    means = cross_validate(FixedFeatures("x", x), y, names, folds)
    np.testing.assert_allclose(means.sample_logit, [means.logit[names == name].mean() for name in means.samples])
    partly = cross_validate(FixedFeatures("x", x), y, names, folds[:1])
    assert np.isfinite(partly.sample_logit).sum() == 2


@pytest.mark.parametrize("head", ["logistic", "mil", "auto"])
def test_one_setting_serves_all_folds_and_the_final_head(monkeypatch, head) -> None:
    used: list[HeadSetting] = []

    def watched(setting, x, *rest, **named):
        used.append(setting)
        return fit_setting(setting, x, *rest, **named)

    x, y, groups = patients(16, 1, effect=0.8)
    monkeypatch.setattr("sc_drugresp._response.train.fit_setting", watched)
    described = FixedFeatures("x", x, description={"use_rep": "x", "kind": "encoder"})
    common = {"head": head, "error_level": 0.1, "rng": 0}
    cells = TrainingCells(y, groups, Verdict("OK", ""), {}, groups)
    model, logits = train_frozen(described, cells, **common)[:2]
    (setting,) = used
    assert model.info["head"]["head"] == setting.kind
    for fold in strict_folds(y, groups, rng=0):
        again = fit_setting(setting, x[fold.train], y[fold.train], groups[fold.train])
        np.testing.assert_allclose(again.logit(x[fold.test]), getattr(logits, "logit", logits)[fold.test], atol=1e-6)


def test_few_of_a_class_are_neither_chosen_on_in_folds_nor_for_the_final_head() -> None:
    """3 sensitive and 14 resistant: folds train on two sensitive samples and cannot choose, so nothing may."""
    x, y, groups = patients(17, 0, sensitive=3, effect=1.0)
    assert try_settings(settings_for("logistic", y, groups), x, y, groups) is not None
    out = held_out("logistic", (x, y, groups))
    assert out.setting == HeadSetting("logistic", fit.DEFAULT_C)


def test_probabilities_of_new_samples_are_those_of_held_out_ones_with_three_of_seventeen() -> None:
    """The calibration comes from the logits of the folds; a head of another penalty has other logits."""
    world = {"effect": 1.0, "dim": 40, "between": 1.0, "cells": 15}
    new, held = [], []
    for seed in range(4):
        data = _, y, groups = patients(17, seed, sensitive=3, **world)
        out = held_out("logistic", data)
        known = np.isfinite(out.logit)
        fitted = fit_calibration(out.logit[known], y[known], groups[known], n_boot=2)
        again, *_ = patients(34, 500 + seed, sensitive=6, **world)
        new.append(fitted.probability(fit_setting(out.setting, *data).logit(again)).mean())
        held.append(fitted.probability(out.logit[known]).mean())
    assert np.mean(new) == pytest.approx(np.mean(held), abs=0.05)
    assert np.mean(new) == pytest.approx(3 / 17, abs=0.05)


def test_labels_that_were_hidden_are_found_again_with_three_of_seventeen() -> None:
    x, y, groups = patients(17, 0, sensitive=3, effect=1.2, cells=15)
    probs = []
    for name in range(17):
        rest = groups != name
        shown = x[rest], y[rest], groups[rest]
        out = held_out("logistic", shown)
        fitted = fit_calibration(out.logit, *shown[1:], n_boot=2)
        probs.append(fitted.probability(fit_setting(out.setting, *shown).logit(x[~rest])).mean())
    assert roc_auc_score(np.arange(17) < 3, probs) > 0.8
    assert np.mean(probs) == pytest.approx(3 / 17, abs=0.1)


def test_choosing_once_for_all_folds_does_not_raise_scores_without_signal() -> None:
    found = [
        roc_auc_score(np.arange(12) < 6, held_out("logistic", patients(12, seed, cells=8, dim=8)).sample_logit)
        for seed in range(16)
    ]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found) / np.sqrt(len(found))


def test_a_penalty_is_chosen_by_loss_and_a_head_by_ranks() -> None:
    settings = [
        HeadSetting("logistic", 0.1),
        HeadSetting("logistic", 1.0),
        HeadSetting("mil"),
        HeadSetting("mil", share=-0.2),
    ]
    trial = fit.Trial(np.array([3.0, 2.0, 0.1, 0.2]), np.array([0.9, 0.8, 0.6, 0.7]))
    assert choose_setting(settings, [trial]) == settings[1]
    assert choose_setting(settings[2:], [trial.only([2, 3])]) == settings[3]
    assert choose_setting(settings, [None]) == settings[0]
    other = fit.Trial(trial.loss, np.array([0.9, 0.7, 0.95, 0.2]))
    assert choose_setting(settings, [other]) == settings[2]
    tied = fit.Trial(trial.loss, np.full(4, 0.8))
    assert choose_setting(settings, [tied]).kind == "logistic"


def test_concordance_compares_within_folds_only() -> None:
    classes = np.array([1, 0, 1, 0, 2])
    scores = [(np.array([0, 1]), np.array([-5.0, -6.0])), (np.array([2, 3, 4]), np.array([9.0, 9.0, 1.0]))]
    assert concordance(scores, classes) == 0.75
    assert np.isnan(concordance([(np.array([0]), np.array([1.0]))], classes))


def as_adata(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> ad.AnnData:
    x, y, groups = data
    obs = pd.DataFrame(
        {"response": np.where(y == 1, "sensitive", "resistant"), "sample": [f"P{g:02d}" for g in groups]},
        index=[f"c{i}" for i in range(len(y))],
    )
    adata = ad.AnnData(np.random.default_rng(0).poisson(2.0, (len(y), 20)).astype(np.float32), obs=obs)
    adata.obsm["X_mine"] = x
    return adata


@pytest.fixture(scope="module")
def fifth() -> ad.AnnData:
    """Patients of whom a fifth of the cells carries the signal."""
    return as_adata(patients(2 * fit.MIN_FOR_AUTO, 0, effect=1.8, share=0.2, cells=25))


def test_auto_chooses_and_says_what_the_choice_promised(fifth) -> None:
    adata = fifth.copy()
    model = sdr.tl.train_response(adata, use_rep="X_mine", group_key="sample", head="auto")
    told = adata.uns["train_response"]["head"]
    assert model.head.kind == told["head"] == "mil"
    assert told["asked"] == "auto"
    assert set(told["inner_auroc"]) == set(OVER_SAMPLES)
    assert told["inner_auroc"]["mil"] == max(told["inner_auroc"].values())
    assert told["optimism"] == pytest.approx(told["inner_auroc"]["mil"] - told["nested_auroc"])
    assert model.info["head"] == told


def test_auto_is_the_default_where_there_are_too_few_samples(fifth) -> None:
    few = fifth[fifth.obs["sample"] != "P00"].copy()
    with pytest.warns(UserWarning, match=f"needs {fit.MIN_FOR_AUTO} samples of each class"):
        model = sdr.tl.train_response(few, use_rep="X_mine", group_key="sample", head="auto")
    assert model.head.kind == "logistic"


@pytest.mark.parametrize("head", [*OVER_SAMPLES, "mlp", "auto"])
def test_evaluation_with_each_head(head) -> None:
    adata = as_adata(patients(8, 0, effect=3.0))
    options = sdr.tl.EvaluationOptions(baselines=False, n_boot=20)
    sdr.tl.evaluate(adata, use_rep="X_mine", group_key="sample", head=head, options=options)
    metrics = adata.uns["evaluation"]["metrics"]
    strict = metrics[(metrics["protocol"] == "leave_group_out") & (metrics["metric"] == "auroc")]
    assert strict["value"].min() > 0.9
    assert adata.uns["evaluation"]["params"]["head"] == head


@pytest.mark.parametrize("head", ["pseudobulk_lda", "mil", "auto"])
def test_heads_over_samples_are_refused_for_encoders_to_be_tuned(head) -> None:
    adata = as_adata(patients(4, 0))
    with pytest.raises(ValueError, match="head='logistic' or head='mlp'"):
        sdr.tl.train_response(adata, model="tgpt", mode="lora", head=head, group_key="sample")
    with pytest.raises(ValueError, match="head='logistic' or head='mlp'"):
        sdr.tl.evaluate(adata, model=sdr.tl.Recipe("tgpt", mode="lora"), head=head, group_key="sample")


def test_centering_sample_by_sample_is_noticed() -> None:
    x, y, groups = patients(8, 0, effect=2.0)
    means = np.array([x[groups == name].mean(axis=0) for name in range(8)])
    adata = as_adata((x - means[groups], y, groups))
    with pytest.warns(UserWarning, match="centered sample by sample"):
        sdr.tl.train_response(adata, use_rep="X_mine", group_key="sample")
    with pytest.warns(UserWarning, match="centered sample by sample"):
        sdr.tl.evaluate(
            adata, use_rep="X_mine", group_key="sample", options=sdr.tl.EvaluationOptions(baselines=False, n_boot=20)
        )


def test_samples_that_happen_to_be_alike_are_no_centering() -> None:
    for seed in range(50):
        x, _, groups = patients(4, seed, between=0.0, dim=2)
        assert not centered(x, groups)
    codes = np.tile(np.eye(6), (20, 1))  # names of cell types, as many of each in every sample
    assert not centered(codes, np.repeat(np.arange(4), 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = patients(8, 0, between=0.0)
        cross_validate(FixedFeatures("x", data[0]), *data[1:], strict_folds(*data[1:], rng=0))


def test_a_head_of_ones_own_needs_no_score_of_samples() -> None:
    class Plain:
        def logit(self, x):
            return x[:, 0]

    x, y, groups = patients(6, 0)
    fold = Fold("one", np.flatnonzero(groups > 1), np.flatnonzero(groups < 2))
    out = crossfit.cross_validate(FixedFeatures("x", x), y, groups, [fold], head=lambda *_, **__: Plain())
    np.testing.assert_allclose(out.sample_logit[:2], [x[groups == name, 0].mean() for name in (0, 1)])
    assert out.setting is None
