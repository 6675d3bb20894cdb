"""Out-of-distribution flags: what is foreign is flagged, what is merely a new sample is not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sc_drugresp._stats.distances import mean_cosine
from sc_drugresp._stats.ood import OODReference
from sc_drugresp._stats.ood_fit import fit_ood


def cells(n_samples: int, rng: np.random.Generator, *, per_sample=60, dim=12, between=0.5, shift=0.0):
    groups = np.repeat(np.arange(n_samples), per_sample)
    y = groups % 2
    center = rng.normal(0, between, (n_samples, dim))
    X = center[groups] + rng.normal(size=(len(groups), dim)) + 2.0 * y[:, None] * (np.arange(dim) == 0) + shift
    return X, groups, y


def test_new_samples_of_the_same_kind_are_flagged_at_about_one_percent() -> None:
    rng = np.random.default_rng(0)
    X, groups, y = cells(20, rng)
    result = fit_ood(X, groups, y=y).score(cells(40, rng)[0])
    assert 0.0 < result.flag.mean() < 0.05


def test_few_training_cells_flag_no_more_than_many() -> None:
    """Left-out samples are compared along as many axes as new ones will be, though fewer cells stand behind them."""
    rng = np.random.default_rng(3)
    flagged = []
    for n_samples in (6, 10):
        X, groups, y = cells(n_samples, rng, per_sample=30, dim=50, between=0.2)
        reference = fit_ood(X, groups, y=y)
        assert reference.components.shape[0] < min(50, len(X) // 10)
        flagged.append(reference.score(cells(20, rng, per_sample=30, dim=50, between=0.2)[0]).flag.mean())
    assert max(flagged) < 0.1


@pytest.mark.parametrize("dim", [12, 150])
def test_foreign_cells_are_found(dim: int) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    X, groups, y = cells(12, rng, dim=dim)
    reference = fit_ood(X, groups, y=y)
    own, foreign = reference.score(cells(12, rng, dim=dim)[0]), reference.score(cells(4, rng, dim=dim, shift=2.5)[0])
    scores = np.concatenate([own.score, foreign.score])
    assert roc_auc_score(np.repeat([0, 1], [len(own.score), len(foreign.score)]), scores) > 0.9
    assert foreign.flag.mean() > 0.5
    assert (foreign.codes[foreign.flag] & (1 + 2)).all()  # far from the training cells, or from both classes


def test_distance_off_the_training_subspace_counts() -> None:
    rng = np.random.default_rng(2)
    X = np.zeros((400, 100))
    X[:, :5] = rng.normal(size=(400, 5))
    X[:, 5:] = 0.05 * rng.normal(size=(400, 95))
    reference = fit_ood(X, np.repeat(np.arange(8), 50))
    off = X[:20].copy()
    off[:, 50] += 1.0
    assert reference.score(off).flag.all()
    assert len(reference.components) < X.shape[1]


def test_distances_equal_their_definition() -> None:
    rng = np.random.default_rng(3)
    X, groups, y = cells(6, rng)
    reference = fit_ood(X, groups, y=y)
    new = rng.normal(size=(5, 12))
    scaled, old = (new - X.mean(0)) / X.std(0), (X - X.mean(0)) / X.std(0)
    knn = np.sort(cdist(scaled, old), axis=1)[:, 9]
    # All axes are kept here, so a rotation and its inverse precision give the same distance.
    points, covariance = scaled @ reference.components.T, np.linalg.inv(reference.precision)
    by_class = [cdist(points, reference.means[[k]], "mahalanobis", VI=np.linalg.inv(covariance))[:, 0] for k in (0, 1)]
    # Each distance on its own decides the score where the threshold of the other is out of reach.
    for own, distance, rtol in (("knn", knn, 1e-4), ("mahalanobis", np.min(by_class, axis=0), 1e-6)):
        limits = {"knn_threshold": 1e9, "mahalanobis_threshold": 1e9, f"{own}_threshold": 2.0}
        np.testing.assert_allclose(replace(reference, **limits).score(new).score, distance / 2, rtol=rtol)


def test_thresholds_come_from_left_out_samples_not_from_neighbors_of_the_same_sample() -> None:
    rng = np.random.default_rng(4)
    X, groups, _ = cells(8, rng, between=3.0)
    by_sample = fit_ood(X, groups).knn_threshold
    mixed = fit_ood(X, rng.permutation(groups)).knn_threshold
    assert by_sample > 1.3 * mixed


def fitted_pca(genes: np.ndarray):
    from sklearn.decomposition import PCA

    def embed(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return PCA(20, random_state=0).fit(genes[train]).transform(genes[rows])

    return embed


def genes_of(n_samples: int, rng: np.random.Generator, programs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(n_samples), 40)
    activity = rng.normal(size=(len(groups), len(programs))) + rng.normal(0, 0.5, (n_samples, len(programs)))[groups]
    return activity @ programs + rng.normal(size=(len(groups), programs.shape[1])), groups


def test_foreign_cells_squeezed_by_a_fitted_encoder_are_found_as_a_sample() -> None:
    """PCA of the training cells has no axis for what is foreign: every such cell lands among the training cells."""
    rng = np.random.default_rng(20)
    programs = rng.normal(size=(5, 200))
    genes, groups = genes_of(12, rng, programs)
    foreign, other = genes_of(4, rng, 0.3 * rng.normal(size=(5, 200)))
    same, new = genes_of(12, rng, programs)
    rows = np.arange(len(genes))
    every = fitted_pca(np.concatenate([genes, foreign, same]))
    X, Z, N = np.split(
        every(rows, np.arange(len(genes) + len(foreign) + len(same))), [len(genes), len(genes) + len(foreign)]
    )
    reference = fit_ood(X, groups, embed=fitted_pca(genes))
    assert reference.score(Z).flag.mean() < 0.2  # cell by cell nothing is seen
    assert reference.score(Z, groups=other).flag.all()
    assert reference.score(Z, groups=other).codes[0] & 64
    assert reference.score(N, groups=new).flag.mean() < 0.15
    assert not reference.score(X, groups=groups).flag.any()  # known cells are not judged by distance
    assert not reference.score(X).flag.any()
    # Left-out samples must be embedded by an encoder that never saw them, else every new sample looks squeezed.
    naive = fit_ood(X, groups)
    assert naive.whole[1, 0] > reference.whole[1, 0] + 0.1


def test_sample_that_is_shifted_as_a_whole_is_found_and_new_samples_are_not() -> None:
    rng = np.random.default_rng(21)
    X, groups, y = cells(20, rng, between=0.3)
    reference = fit_ood(X, groups, y=y)
    new, names, _ = cells(100, rng, between=0.3)
    shift = reference.score(new, groups=names).codes & (32 + 64)
    assert (shift[::60] > 0).mean() < 0.06
    result = reference.score(cells(2, rng, between=0.3, shift=1.2)[0], groups=np.repeat(["a", "b"], 60))
    assert (result.codes & 32).all()


def test_reference_is_bounded_balanced_and_reproducible() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2], [3000, 300, 100])
    X = rng.normal(size=(3400, 6)) + groups[:, None]
    one, two = fit_ood(X, groups), fit_ood(X, groups)
    assert one.cells.shape == (2_000, 6)
    np.testing.assert_array_equal(one.cells, two.cells)
    # Six axes of six dimensions are a rotation, which can be turned back.
    owner = np.rint((one.cells @ one.components * one.scale + one.center).mean(axis=1))
    assert (owner >= 1.5).sum() >= 70  # the sample of 100 cells is kept almost whole


def test_unusual_depth_is_named() -> None:
    rng = np.random.default_rng(6)
    X, groups, y = cells(6, rng)
    reference = fit_ood(X, groups, y=y, depth=rng.uniform(3000, 6000, len(X)))
    assert reference.score(X[:4], depth=[4000, 4000, 100, 90_000]).codes.tolist() == [0, 0, 4, 4]


def test_collapsed_embedding_is_flagged_unless_training_was_collapsed_too() -> None:
    rng = np.random.default_rng(7)
    X, groups, y = cells(6, rng)
    flat = np.ones((30, 12)) + 1e-3 * rng.normal(size=(30, 12))
    assert (fit_ood(X, groups, y=y).score(flat).codes & 8).all()
    again = fit_ood(X + 100, groups, y=y).score(X[:50] + 100)
    assert not (again.codes & 8).any()


def test_mean_cosine_over_pairs() -> None:
    X = np.random.default_rng(8).normal(size=(30, 4)) + 0.5
    similar = 1 - cdist(X, X, "cosine")
    assert mean_cosine(X) == pytest.approx(similar[~np.eye(30, dtype=bool)].mean())


def test_cells_without_embedding_are_flagged() -> None:
    X, groups, y = cells(6, np.random.default_rng(9))
    new = X[:3].copy()
    new[1] = np.nan
    result = fit_ood(X, groups, y=y).score(new)
    assert result.flag[1]
    assert np.isnan(result.score[1])
    assert result.codes[1] == 16
    assert np.isfinite(result.score[[0, 2]]).all()


def test_one_training_sample_has_to_do() -> None:
    rng = np.random.default_rng(11)
    reference = fit_ood(rng.normal(size=(100, 5)), np.zeros(100))
    result = reference.score(rng.normal(size=(50, 5)))
    assert result.flag.mean() < 0.2


def test_state_survives_json_and_arrays() -> None:
    X, groups, y = cells(6, np.random.default_rng(12))
    reference = fit_ood(X, groups, y=y)
    again = OODReference.from_dict(json.loads(json.dumps(reference.to_dict(), allow_nan=False)), reference.arrays())
    np.testing.assert_array_equal(again.score(X).score, reference.score(X).score)
    assert np.isnan(again.depth_low)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="same embedding"):
        fit_ood(np.ones((50, 3)), np.repeat([0, 1], 25))
