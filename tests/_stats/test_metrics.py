from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as skm

from sc_drugresp._stats.metrics import METRICS, classification_metrics, macro_average, sample_scores

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
    assert classification_metrics(y, prob)["ece"] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(5))
def test_values_are_those_of_sklearn(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 40)
    prob = np.round(np.clip(0.2 * y + rng.uniform(size=40) * 0.8, 0, 1), 1)  # rounding makes ties
    call = prob >= 0.5
    expected = {
        "auroc": skm.roc_auc_score(y, prob),
        "auprc": skm.average_precision_score(y, prob),
        "accuracy": skm.accuracy_score(y, call),
        "balanced_accuracy": skm.balanced_accuracy_score(y, call),
        "precision": skm.precision_score(y, call),
        "recall": skm.recall_score(y, call),
        "specificity": skm.recall_score(y, call, pos_label=0),
        "f1": skm.f1_score(y, call),
        "f1_resistant": skm.f1_score(y, call, pos_label=0),
        "mcc": skm.matthews_corrcoef(y, call),
        "brier": skm.brier_score_loss(y, prob),
        "log_loss": skm.log_loss(y, np.clip(prob, 1e-7, 1 - 1e-7)),
    }
    got = classification_metrics(y, prob)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert set(METRICS) - set(expected) == {"ece"}


def test_undefined_is_nan():
    only = classification_metrics(np.ones(4, int), np.full(4, 0.1))
    assert all(np.isnan(only[name]) for name in ("auroc", "balanced_accuracy", "mcc", "precision"))
    assert only["recall"] == 0
    assert only["accuracy"] == 0
    assert all(np.isnan(value) for value in classification_metrics(np.zeros(0, int), np.zeros(0)).values())


def test_sample_scores_leave_out_mixed_samples():
    groups = np.array(["b", "b", "a", "a", "c", "c", "d", "d"])
    scores = sample_scores(Y, P, groups)
    assert scores.groups.tolist() == ["b", "c", "d"]
    assert scores.y.tolist() == [1, 0, 0]
    assert scores.prob == pytest.approx([0.75, 0.35, 0.075])
    assert scores.n_mixed == 1
    assert scores.n_right == 3


def test_a_few_samples_with_both_labels_count_as_their_majority():
    groups = np.repeat(np.arange(5), 3)
    y = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    scores = sample_scores(y, np.linspace(0, 1, 15), groups)
    assert scores.y.tolist() == [1, 1, 0, 0, 1]
    assert scores.n_mixed == 1


def test_macro_average_skips_undefined():
    assert macro_average([{"a": 1.0}, {"a": float("nan")}, {"a": 0.0}]) == {"a": 0.5}
    assert np.isnan(macro_average([{"a": float("nan")}])["a"])
