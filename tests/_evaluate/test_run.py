from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression

from sc_drugresp._data import CountSource
from sc_drugresp._design.quality import qc_features
from sc_drugresp._evaluate.naive import (
    MostVariable,
    PseudobulkFeatures,
    constant_scores,
    fit_boosting,
    fit_ridge,
    group_means,
    in_bins,
    naive_baselines,
    permute_labels,
    permuted_scores,
    prevalence_prediction,
    refit_p_value,
)
from sc_drugresp._evaluate.scores import Truth, score_rows
from sc_drugresp._response.crossfit import cross_validate
from sc_drugresp._response.features import FittedFeatures, FixedFeatures
from sc_drugresp._stats.folds import Fold, leave_group_out, pooled


def cohort(k=6, cells=15, dim=8, signal=0.0, sample_effect=2.0, seed=0):
    """Embedding of `2 k` samples with strong sample effects; half of the samples are sensitive."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(2 * k), cells)
    y = (groups % 2).astype(int)
    x = sample_effect * rng.normal(size=(2 * k, dim))[groups] + rng.normal(size=(len(groups), dim))
    x[:, 0] += signal * y
    return x, y, np.char.add("s", groups.astype(str))


class Recorder:
    """An embedder that remembers which rows it was fitted to."""

    def __init__(self, x, seen):
        self.x, self.seen = x, seen

    def refits(self, source, *, rng):
        def embed(train):
            self.seen.append(train)
            return self.x

        return SimpleNamespace(embed=embed)


def fit_means(x, y, groups, *, rng):
    """A head that is quick: the direction between the class means."""
    high, low = (np.mean([x[groups == g].mean(axis=0) for g in np.unique(groups[y == k])], axis=0) for k in (1, 0))

    class Head:
        def logit(self, z):
            return (z - (high + low) / 2) @ (high - low)

    return Head()


def source(n=30, genes=40):
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (n, genes)).astype(np.float32))
    names = np.array([f"G{i}" for i in range(genes - 2)] + ["MT-CO1", "mt-Nd1"])
    return CountSource(counts, names, None, "X", "counts")


def test_what_is_fitted_never_sees_the_test_cells():
    x, y, groups = cohort(k=3, cells=5)
    seen: list[np.ndarray] = []
    features = FittedFeatures("pca", Recorder(x, seen), source(len(y)))
    folds = leave_group_out(y, groups)
    cross_validate(features, y, groups, folds, tune=False)
    cross_validate(features, y, groups, folds, tune=False)
    assert [rows.tolist() for rows in seen] == [
        fold.train.tolist() for fold in folds
    ]  # once per fold, training rows only


def test_noise_per_sample_is_chance_when_samples_are_held_out_and_looks_good_when_not():
    x, y, groups = cohort(k=5, seed=1)
    strict = cross_validate(FixedFeatures("x", x), y, groups, leave_group_out(y, groups))
    loose = cross_validate(FixedFeatures("x", x), y, groups, pooled(y))
    datasets = np.full(len(y), "a")

    def auroc(out):
        rows = score_rows("x", "p", Truth(y, groups, datasets), out.prob, n_boot=0)
        return next(r for r in rows if (r["metric"], r["level"], r["dataset"]) == ("auroc", "cell", "macro"))

    assert auroc(strict)["low"] <= 0.5 <= auroc(strict)["high"]
    assert auroc(strict)["p_value"] > 0.05
    assert auroc(loose)["value"] > 0.9


def test_noise_per_cell_is_chance_under_every_split():
    x, _, groups = cohort(k=5, cells=30)
    y = np.random.default_rng(1).integers(0, 2, len(x))
    for folds in (leave_group_out(y, groups), pooled(y)):
        out = cross_validate(FixedFeatures("x", x), y, groups, folds, tune=False)
        rows = score_rows("x", "p", Truth(y, groups, np.full(len(y), "a")), out.prob, n_boot=0)
        cell = next(r for r in rows if r["metric"] == "auroc" and r["level"] == "cell")
        assert cell["low"] <= 0.5 <= cell["high"]


def test_signal_is_found():
    x, y, groups = cohort(signal=3.0, sample_effect=0.3)
    out = cross_validate(FixedFeatures("x", x), y, groups, leave_group_out(y, groups))
    rows = score_rows("x", "p", Truth(y, groups, np.full(len(y), "a")), out.prob, n_boot=50)
    found = {(r["metric"], r["level"]): r for r in rows if r["dataset"] == "macro"}
    assert found["auroc", "cell"]["value"] > 0.9
    assert found["auroc", "sample"]["p_value"] < 0.01
    assert found["samples_right", "sample"]["value"] == 12
    assert found["f1", "cell"]["low"] <= found["f1", "cell"]["value"] <= found["f1", "cell"]["high"]


def test_cells_without_embedding_are_scored_as_one_half():
    x, y, groups = cohort(k=3)
    x[3] = np.nan
    out = cross_validate(FixedFeatures("x", x), y, groups, leave_group_out(y, groups), tune=False)
    assert out.prob[3] == 0.5
    assert "1 cells have no embedding" in out.notes[0]
    assert not np.isnan(out.prob).any()


def test_folds_are_checked():
    x, y, groups = cohort(k=3)
    with pytest.raises(ValueError, match="tests cells that it learns from"):
        cross_validate(FixedFeatures("x", x), y, groups, [Fold("bad", np.arange(50), np.arange(40, 60))])
    one_class = [Fold("one", np.flatnonzero(y == 1), np.flatnonzero(y == 0))]
    out = cross_validate(FixedFeatures("x", x), y, groups, one_class)
    assert "one class in training" in out.notes[0]
    assert set(out.prob[y == 0]) == {0.5}
    assert np.isnan(out.prob[y == 1]).all()


def test_scores_are_averaged_over_data_sets():
    _, y, groups = cohort(k=4)
    datasets = np.where(np.arange(len(y)) < len(y) // 2, "a", "b")
    prob = np.where(datasets == "a", 0.2 + 0.6 * y, 0.8 - 0.6 * y)
    rows = score_rows("x", "p", Truth(y, groups, datasets), prob, n_boot=0, n_permutations=200)
    auroc = {r["dataset"]: r for r in rows if r["metric"] == "auroc" and r["level"] == "cell"}
    assert (auroc["a"]["value"], auroc["b"]["value"], auroc["macro"]["value"]) == (1, 0, 0.5)
    assert auroc["a"]["p_value"] == pytest.approx(1 / 6)  # 2 against 2 samples
    assert auroc["macro"]["p_value"] > 0.3


def test_constant_answers():
    y = np.array([1, 1, 1, 0])
    got = constant_scores(y, np.full(4, "a"))["macro"]
    assert got["f1"] == pytest.approx(2 * 0.75 / 1.75)
    assert got["f1_resistant"] == pytest.approx(2 * 0.25 / 1.25)
    assert got["accuracy"] == 0.75
    assert got["auroc"] == 0.5
    # Constant "sensitive" on a set with 62 % sensitive cells: the score that scDrugMap reports as its best.
    many = (np.arange(1000) < 631).astype(int)
    assert constant_scores(many, np.full(1000, "a"))["macro"]["f1"] == pytest.approx(0.774, abs=0.001)
    assert prevalence_prediction(y, np.full(4, "a")).tolist() == [0.75] * 4


def test_refitted_p_values_are_uniform_without_signal():
    p_values = []
    for seed in range(40):
        x, y, groups = cohort(k=4, cells=3, dim=3, seed=seed)
        make, datasets = partial(leave_group_out, groups=groups), np.full(len(y), "a")
        folds = make(y)
        prob = cross_validate(FixedFeatures("x", x), y, groups, folds, head=fit_means).prob
        value = score_rows("x", "p", Truth(y, groups, datasets), prob, n_boot=0, n_permutations=0)[0]["value"]
        null = permuted_scores(
            FixedFeatures("x", x),
            y,
            groups,
            datasets,
            lambda dealt, make=make: [make(dealt)],
            head=fit_means,
            n=9,
            rng=seed,
        )
        p_values.append(refit_p_value(value, null["cell"]["auroc"]))
    assert kstest(np.array(p_values) - 0.05, "uniform").pvalue > 0.01


def test_refitted_p_value_by_hand():
    assert refit_p_value(0.8, np.array([0.5, 0.8, 0.9])) == 0.75
    assert np.isnan(refit_p_value(np.nan, np.array([0.5])))


def test_labels_are_dealt_out_between_samples():
    rng = np.random.default_rng(0)
    _, y, groups = cohort(k=5)
    dealt = permute_labels(y, groups, np.full(len(y), "a"), rng)
    assert dealt.sum() == y.sum()
    assert all(len(set(dealt[groups == g])) == 1 for g in np.unique(groups))
    assert not np.array_equal(dealt, y)
    mixed = rng.integers(0, 2, len(y))
    dealt = permute_labels(mixed, groups, np.full(len(y), "a"), rng)
    assert all(dealt[groups == g].sum() == mixed[groups == g].sum() for g in np.unique(groups))


def test_permuted_labels_look_predictable_when_cells_are_split_at_random():
    x, y, groups = cohort()
    datasets = np.full(len(y), "a")
    scores = permuted_scores(FixedFeatures("x", x), y, groups, datasets, lambda dealt: [pooled(dealt)], n=3, tune=False)
    assert scores["cell"]["auroc"].shape == (3,)
    assert scores["cell"]["auroc"].min() > 0.7
    assert scores["sample"]["auroc"].shape == (3,)


def test_qc_features():
    reader = source()
    got = qc_features(reader)
    block = np.concatenate([b.toarray() for _, b in reader.blocks()])
    np.testing.assert_allclose(got[:, 0], np.log1p(block.sum(axis=1)))
    np.testing.assert_allclose(got[:, 1], np.log1p((block > 0).sum(axis=1)))
    np.testing.assert_allclose(got[:, 2], block[:, -2:].sum(axis=1) / block.sum(axis=1))


def test_pseudobulk_averages_both_parts_apart():
    x, _, groups = cohort(k=3, cells=4)
    features = PseudobulkFeatures(FixedFeatures("x", x), groups)
    train, test = np.arange(0, 14), np.arange(14, 24)  # sample s3 stands in both
    a, b = features.split(train, test)
    np.testing.assert_allclose(a[12], x[12:14].mean(axis=0))
    np.testing.assert_allclose(b[0], x[14:16].mean(axis=0))
    np.testing.assert_allclose(group_means(x, groups)[0], x[:4].mean(axis=0))


def test_ridge_learns_from_samples_not_cells():
    x, y, groups = cohort(signal=4.0, sample_effect=0.2)
    x = group_means(x, groups)
    head = fit_ridge(x, y, groups)
    many = np.concatenate([np.arange(len(y)), np.repeat(0, 500)])  # 500 more cells of one sample
    again = fit_ridge(x[many], y[many], groups[many])
    np.testing.assert_allclose(head.logit(x), again.logit(x), rtol=1e-6)
    assert ((head.logit(x) > 0) == (y == 1)).all()


def test_most_variable_columns_are_chosen_on_the_training_cells():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)) * np.array([1, 5, 1, 1, 9, 1])
    x[30:, 0] = 1000 * rng.normal(size=10)  # varies among test cells only
    a, b = MostVariable(FixedFeatures("x", x), 2).split(np.arange(30), np.arange(30, 40))
    np.testing.assert_array_equal(a, x[:30][:, [1, 4]])
    np.testing.assert_array_equal(b, x[30:][:, [1, 4]])


def test_boosted_trees_see_bins_of_the_training_cells():
    x, y, groups = cohort(k=4, cells=40, signal=3.0, sample_effect=0.2)
    head = fit_boosting(x, y, groups)
    expected = [np.digitize(x[:, j], np.quantile(x[:, j], np.arange(1, 32) / 32)) for j in range(x.shape[1])]
    np.testing.assert_array_equal(in_bins(x, head.edges), np.column_stack(expected))
    assert ((head.logit(x) > 0) == (y == 1)).mean() > 0.9


def test_features_that_are_fitted_alike_are_fitted_once():
    from sc_drugresp.models.baselines import PCA

    reader = source(60)
    known = FittedFeatures("mine", PCA(), reader)
    groups, qc = np.repeat(["a", "b"], 30), qc_features(reader)
    rows = naive_baselines(reader, groups, qc, known=[known])
    assert rows["pca_logistic"].features is known
    for other in (FittedFeatures("x", PCA(n_comps=5), reader), FittedFeatures("x", PCA(), source(60))):
        assert naive_baselines(reader, groups, qc, known=[other])["pca_logistic"].features is not other


def test_default_head_is_a_balanced_logistic_regression():
    x, y, groups = cohort(k=2, cells=10, signal=2.0)
    fold = Fold("a", np.arange(30), np.arange(30, 40))
    out = cross_validate(FixedFeatures("x", x), y, groups, [fold], C=0.1)
    train = x[:30]
    z = (x - train.mean(axis=0)) / train.std(axis=0)
    weights = np.where(y[:30] == 1, 30 / 20, 30 / 40)  # one sensitive sample, two resistant ones
    model = LogisticRegression(C=0.1, max_iter=2000, tol=1e-8).fit(z[:30], y[:30], sample_weight=weights)
    np.testing.assert_allclose(out.prob[30:], model.predict_proba(z[30:])[:, 1], atol=1e-3)
