"""State or sensitivity: verdicts where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from sc_drugresp._evaluate import state
from sc_drugresp._evaluate.state import state_control
from sc_drugresp._response.features import FixedFeatures
from sc_drugresp._stats.erasure import fit_eraser
from sc_drugresp._stats.folds import Fold, leave_group_out

_plain_fit = state._fit


def leave_one_out(y: np.ndarray, groups: np.ndarray) -> list[Fold]:
    return leave_group_out(y, groups, max_leave_out=100, pairs=False)


def trial(rng: np.random.Generator, *, signal: float, state: float, n_samples=24, per_sample=30, dim=10, agree=0.75):
    """Samples before or after treatment; axis 0 holds sensitivity, axis 1 what the drug did.

    `agree` is the share of sensitive samples that are untreated (and of resistant ones that are treated).
    """
    half = n_samples // 2
    label = np.repeat([1, 0], half)
    untreated = round(agree * half)
    treated = np.concatenate([np.arange(half) >= untreated, np.arange(half) < untreated]).astype(float)
    groups = np.repeat(np.arange(n_samples), per_sample)
    X = rng.normal(size=(len(groups), dim)) + rng.normal(0, 0.3, (n_samples, dim))[groups]
    X[:, 0] += signal * (label[groups] - 0.5)
    X[:, 1] += state * treated[groups]
    return X, label[groups], treated[groups], groups


def test_score_that_reads_the_drug_is_called_state() -> None:
    X, y, treated, groups = trial(
        np.random.default_rng(3), signal=0.0, state=3.0, n_samples=48, agree=20 / 24, per_sample=15
    )
    control = state_control(FixedFeatures("x", X), y, treated, groups, leave_one_out(y, groups))
    assert control.verdict == "state"
    assert control.aurocs["auroc"].value > 0.65
    assert control.aurocs["erased"].value < 0.6
    assert control.aurocs["treated"].value < 0.2  # treated cells look resistant
    assert abs(control.aurocs["treated_erased"].value - 0.5) < 0.2
    assert control.label_treatment_correlation == pytest.approx(-2 / 3)


def test_score_that_was_there_before_is_called_pre_treatment_signal() -> None:
    X, y, treated, groups = trial(np.random.default_rng(4), signal=2.5, state=1.0, agree=0.5)
    control = state_control(FixedFeatures("x", X), y, treated, groups, leave_one_out(y, groups))
    assert control.verdict == "pre-treatment signal"
    assert control.aurocs["erased"].value > 0.8
    assert control.aurocs["pretreatment"].low > 0.5


def test_both_sources_are_called_mixed() -> None:
    X, y, treated, groups = trial(np.random.default_rng(5), signal=0.8, state=4.0, agree=5 / 6, n_samples=36)
    control = state_control(FixedFeatures("x", X), y, treated, groups, leave_one_out(y, groups))
    assert control.verdict == "mixed"
    assert 0.5 < control.aurocs["erased"].value < control.aurocs["auroc"].value


def test_label_that_is_the_time_point_is_state_whatever_the_score() -> None:
    X, y, treated, groups = trial(np.random.default_rng(6), signal=3.0, state=3.0, agree=1.0)
    control = state_control(FixedFeatures("x", X), y, treated, groups, leave_one_out(y, groups))
    assert control.verdict == "state"
    assert "label is the time point" in control.reason


def test_what_cannot_be_known_is_unknown() -> None:
    X, y, treated, groups = trial(np.random.default_rng(7), signal=2.0, state=0.0)
    folds = leave_one_out(y, groups)
    assert state_control(FixedFeatures("x", X), y, np.full(len(y), np.nan), groups, folds).verdict == "unknown"
    after = state_control(FixedFeatures("x", X), y, np.ones(len(y)), groups, folds)
    assert (after.verdict, "after treatment" in after.reason) == ("unknown", True)
    before = state_control(FixedFeatures("x", X), y, np.zeros(len(y)), groups, folds)
    assert before.verdict == "pre-treatment signal"
    noise = np.random.default_rng(8).normal(size=X.shape)
    noise = state_control(FixedFeatures("x", noise), y, treated, groups, folds)
    assert (noise.verdict, "no signal" in noise.reason) == ("unknown", True)


def test_only_training_rows_reach_the_eraser_and_the_head(monkeypatch) -> None:
    X, y, treated, groups = trial(np.random.default_rng(9), signal=2.0, state=1.0, n_samples=8, agree=0.5)
    folds = leave_one_out(y, groups)
    heads, erasers = [], []
    monkeypatch.setattr(state, "_fit", lambda x, *rest, **_: heads.append(x) or _plain_fit(x, *rest))
    monkeypatch.setattr(state, "fit_eraser", lambda x, *rest: erasers.append(x) or fit_eraser(x, *rest))
    state_control(FixedFeatures("x", X), y, treated, groups, folds)
    assert len(heads) >= 2 * len(folds)
    assert [len(x) for x in erasers] == [len(fold.train) for fold in folds]
    for x, fold in zip(erasers, folds, strict=True):
        np.testing.assert_array_equal(x, X[fold.train])


def test_table() -> None:
    X, y, treated, groups = trial(np.random.default_rng(10), signal=2.0, state=1.0, n_samples=8, agree=1.0)
    table = state_control(FixedFeatures("x", X), y, treated, groups, leave_one_out(y, groups)).table()
    assert table.index.tolist() == ["auroc", "erased", "pretreatment", "treated", "treated_erased"]
    assert np.isnan(table.loc["pretreatment", "value"])


def test_cells_without_an_embedding_are_left_out() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 10)
    y, treated = groups % 2, (groups // 2 % 2).astype(float)
    X = rng.normal(size=(120, 4)) + y[:, None]
    X[::10] = np.nan
    folds = [Fold(str(k), np.flatnonzero(groups % 3 != k), np.flatnonzero(groups % 3 == k)) for k in range(3)]
    found = state_control(FixedFeatures("x", X), y, treated, groups, folds)
    assert found.aurocs["erased"].value > 0.8
