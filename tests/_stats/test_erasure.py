"""Erasure of the treatment: the algebra, and verdicts where the truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sc_drugresp._stats.erasure import Eraser, fit_eraser, state_control


def leave_one_out(groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in np.unique(groups)]


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


@pytest.mark.parametrize("dim", [8, 300])
def test_no_linear_trace_of_the_concept_is_left(dim: int) -> None:
    rng = np.random.default_rng(0)
    treated = np.arange(200) % 2
    X = rng.normal(size=(200, dim)) @ rng.normal(size=(dim, dim)) + 3 * treated[:, None]
    weights = rng.random(200)
    eraser = fit_eraser(X, treated, weights)
    erased = eraser.transform(X)
    w = weights / weights.sum()
    cross = ((erased - w @ erased) * w[:, None]).T @ (treated - w @ treated)
    assert np.abs(cross).max() < 1e-8 * np.abs(X).max()
    np.testing.assert_allclose(w @ erased, w @ X)
    # A projection: erasing twice is erasing once.
    np.testing.assert_allclose(eraser.transform(erased), erased, atol=1e-7 * np.abs(X).max())
    assert eraser.rank == 1


def test_change_equals_the_published_formula() -> None:
    """Belrose et al., theorem 4.3: `x - W^+ P W (x - mean)` with the shrunk covariance."""
    from scipy.linalg import orth, sqrtm
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(1)
    concept = rng.integers(0, 3, 120)
    X = rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5)) + np.eye(5)[concept]
    centered = X - X.mean(axis=0)
    whiten = np.linalg.inv(np.real(sqrtm(ledoit_wolf(centered, assume_centered=True)[0])))
    one_hot = np.eye(3)[concept] - np.eye(3)[concept].mean(axis=0)
    basis = orth(whiten @ centered.T @ one_hot / 120, rcond=1e-8)
    expected = X - centered @ (np.linalg.inv(whiten) @ basis @ basis.T @ whiten).T
    np.testing.assert_allclose(fit_eraser(X, concept.astype(str)).transform(X), expected, atol=1e-8)


def test_constant_concept_changes_nothing() -> None:
    X = np.random.default_rng(2).normal(size=(20, 4))
    eraser = fit_eraser(X, np.ones(20))
    assert eraser.rank == 0
    np.testing.assert_array_equal(eraser.transform(X), X)
    again = Eraser.from_dict(json.loads(json.dumps(eraser.to_dict())), eraser.arrays())
    np.testing.assert_array_equal(again.transform(X), X)


def test_score_that_reads_the_drug_is_called_state() -> None:
    X, y, treated, groups = trial(
        np.random.default_rng(3), signal=0.0, state=3.0, n_samples=48, agree=20 / 24, per_sample=15
    )
    control = state_control(X, y, treated, groups, leave_one_out(groups))
    assert control.verdict == "state"
    assert control.auroc.value > 0.65
    assert control.erased.value < 0.6
    assert control.treated.value < 0.2  # treated cells look resistant
    assert abs(control.treated_erased.value - 0.5) < 0.2
    assert control.label_treatment_correlation == pytest.approx(-2 / 3)


def test_score_that_was_there_before_is_called_pre_treatment_signal() -> None:
    X, y, treated, groups = trial(np.random.default_rng(4), signal=2.5, state=1.0, agree=0.5)
    control = state_control(X, y, treated, groups, leave_one_out(groups))
    assert control.verdict == "pre-treatment signal"
    assert control.erased.value > 0.8
    assert control.pretreatment.low > 0.5


def test_both_sources_are_called_mixed() -> None:
    X, y, treated, groups = trial(np.random.default_rng(5), signal=0.8, state=4.0, agree=5 / 6, n_samples=36)
    control = state_control(X, y, treated, groups, leave_one_out(groups))
    assert control.verdict == "mixed"
    assert 0.5 < control.erased.value < control.auroc.value


def test_label_that_is_the_time_point_is_state_whatever_the_score() -> None:
    X, y, treated, groups = trial(np.random.default_rng(6), signal=3.0, state=3.0, agree=1.0)
    control = state_control(X, y, treated, groups, leave_one_out(groups))
    assert control.verdict == "state"
    assert "label is the time point" in control.reason


def test_what_cannot_be_known_is_unknown() -> None:
    X, y, treated, groups = trial(np.random.default_rng(7), signal=2.0, state=0.0)
    folds = leave_one_out(groups)
    assert state_control(X, y, np.full(len(y), np.nan), groups, folds).verdict == "unknown"
    after = state_control(X, y, np.ones(len(y)), groups, folds)
    assert (after.verdict, "after treatment" in after.reason) == ("unknown", True)
    before = state_control(X, y, np.zeros(len(y)), groups, folds)
    assert before.verdict == "pre-treatment signal"
    noise = state_control(np.random.default_rng(8).normal(size=X.shape), y, treated, groups, folds)
    assert (noise.verdict, "no signal" in noise.reason) == ("unknown", True)


def test_only_training_rows_reach_the_eraser_and_the_head() -> None:
    X, y, treated, groups = trial(np.random.default_rng(9), signal=2.0, state=1.0, n_samples=8, agree=0.5)
    folds = leave_one_out(groups)
    seen: list[set[int]] = []

    class Head:
        def __init__(self, x: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> None:
            seen.append(set(codes.tolist()))

        def logit(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0]

    state_control(X, y, treated, groups, folds, fit=Head)
    assert len(seen) >= 2 * len(folds)
    assert all(len(codes) < 8 for codes in seen)
    with pytest.raises(ValueError, match="both sides"):
        state_control(X, y, treated, groups, [(np.arange(0, 200), np.arange(190, 240))])


def test_table_and_json() -> None:
    X, y, treated, groups = trial(np.random.default_rng(10), signal=2.0, state=1.0, n_samples=8, agree=1.0)
    control = state_control(X, y, treated, groups, leave_one_out(groups))
    table = control.table()
    assert table.index.tolist() == ["auroc", "erased", "pretreatment", "treated", "treated_erased"]
    assert np.isnan(table.loc["pretreatment", "value"])
    data = json.loads(json.dumps(control.to_dict(), allow_nan=False))
    assert data["table"]["pretreatment"]["value"] is None
    assert data["verdict"] == "state"
