from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as skm

from sc_drugresp._stats.metrics import (
    METRICS,
    classification_metrics,
    expected_calibration_error,
    macro_average,
    sample_scores,
)

Y = np.array([1, 1, 1, 0, 0, 0, 0, 0])
P = np.array([0.9, 0.6, 0.2, 0.7, 0.4, 0.3, 0.1, 0.05])  # TP 2, FN 1, FP 1, TN 4


def test_hand_formulas():
    got = classification_metrics(Y, P)
    assert set(got) == set(METRICS)
    assert got["accuracy"] == pytest.approx(6 / 8)
    assert got["precision"] == pytest.approx(2 / 3)
    assert got["recall"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(2 / 3)
    assert got["f1_resistant"] == pytest.approx(4 / 5)
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert got["mcc"] == pytest.approx((2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5))
    assert got["auroc"] == pytest.approx((5 + 4 + 2) / 15)
    assert got["brier"] == pytest.approx(np.mean((P - Y) ** 2))
    assert got["log_loss"] == pytest.approx(-np.mean(np.where(Y, np.log(P), np.log(1 - P))))


def test_ece_of_two_bins():
    y, prob = np.array([0, 1, 1, 1]), np.array([0.25, 0.25, 0.75, 0.75])
    # Bin 1: observed 0.5, predicted 0.25. Bin 2: observed 1, predicted 0.75. Both hold half of the cells.
    assert expected_calibration_error(y, prob, n_bins=2) == pytest.approx(0.25)


def test_weights_equal_repetition():
    weights = np.array([1, 2, 3, 1, 2, 1, 1, 4])
    repeated = np.repeat(np.arange(len(Y)), weights)
    one, other = classification_metrics(Y, P, weights.astype(float)), classification_metrics(Y[repeated], P[repeated])
    assert one == pytest.approx(other)


def test_undefined_is_nan():
    only = classification_metrics(np.ones(4, int), np.full(4, 0.1))
    assert all(np.isnan(only[name]) for name in ("auroc", "balanced_accuracy", "mcc", "precision"))
    assert only["recall"] == 0
    assert only["accuracy"] == 0
    assert all(np.isnan(value) for value in classification_metrics(np.zeros(0, int), np.zeros(0)).values())


def test_auprc_is_sklearns():
    assert classification_metrics(Y, P)["auprc"] == skm.average_precision_score(Y, P)


@pytest.mark.parametrize(
    ("y", "prob", "text"),
    [
        (np.array([0, 2]), np.array([0.1, 0.2]), "labels 0"),
        (np.array([0, 1]), np.array([0.1, 1.2]), "between 0 and 1"),
        (np.array([0, 1]), np.array([0.1, np.nan]), "between 0 and 1"),
        (np.array([0, 1]), np.array([0.1]), "one label and one probability"),
    ],
)
def test_wrong_input(y, prob, text):
    with pytest.raises(ValueError, match=text):
        classification_metrics(y, prob)


def test_sample_scores_leave_out_mixed_samples():
    groups = np.array(["b", "b", "a", "a", "c", "c", "d", "d"])
    scores = sample_scores(Y, P, groups)
    assert scores.groups.tolist() == ["b", "c", "d"]
    assert scores.y.tolist() == [1, 0, 0]
    assert scores.prob == pytest.approx([0.75, 0.35, 0.075])
    assert scores.n_mixed == 1
    assert scores.n_right == 3


def test_macro_average_skips_undefined():
    assert macro_average([{"a": 1.0}, {"a": float("nan")}, {"a": 0.0}]) == {"a": 0.5}
    assert np.isnan(macro_average([{"a": float("nan")}])["a"])
