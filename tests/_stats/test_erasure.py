"""Erasure of a concept: the algebra."""

from __future__ import annotations

import numpy as np
import pytest

from sc_drugresp._stats.erasure import fit_eraser


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


def test_change_equals_the_published_formula() -> None:
    """Belrose et al., theorem 4.3: `x - W^+ P W (x - mean)` with the shrunk covariance."""
    from scipy.linalg import orth, sqrtm
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(1)
    concept = rng.integers(0, 2, 120)
    X = rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5)) + np.eye(5)[concept]
    centered = X - X.mean(axis=0)
    whiten = np.linalg.inv(np.real(sqrtm(ledoit_wolf(centered, assume_centered=True)[0])))
    basis = orth(whiten @ centered.T @ (concept - concept.mean())[:, None] / 120)
    expected = X - centered @ (np.linalg.inv(whiten) @ basis @ basis.T @ whiten).T
    np.testing.assert_allclose(fit_eraser(X, concept, np.ones(120)).transform(X), expected, atol=1e-8)


def test_constant_concept_changes_nothing() -> None:
    X = np.random.default_rng(2).normal(size=(20, 4))
    np.testing.assert_array_equal(fit_eraser(X, np.ones(20), np.ones(20)).transform(X), X)
