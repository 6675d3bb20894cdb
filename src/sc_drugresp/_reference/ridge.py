"""One ridge regression per drug in closed form, with the exact error of leaving out a line and its relatives.

Sources: Hoerl & Kennard (1970, Technometrics 12:55) for ridge regression; Rasmussen & Williams (2006, sections 2.7 and
5.4.2) for the bordered system of an unpenalized mean and for leave-one-out errors from the inverse of the kernel, which
hold for any block of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class DrugRidge:
    """Fits of all drugs of a screen."""

    weights: np.ndarray
    """Shape `(n_genes, n_drugs)`, float64; for standardized genes."""
    intercept: np.ndarray
    """Shape `(n_drugs,)`."""
    held_out: np.ndarray
    """Prediction for each line by a fit without its family, shape `(n_lines, n_drugs)`; NaN where nothing was measured."""
    held_out_mean: np.ndarray
    """Mean of the drug over the lines of the same fit."""


def fit_drugs(Z: np.ndarray, Y: np.ndarray, families: np.ndarray, penalty: float) -> DrugRidge:
    """Fit every drug to the lines in which it was measured.

    The intercept is not penalized. All drugs share one kernel of lines; each needs one Cholesky factor of the part that it
    was measured in, and the errors of all left-out families follow from its inverse.

    Parameters
    ----------
    Z
        Standardized expression, shape `(n_lines, n_genes)`.
    Y
        Response, shape `(n_lines, n_drugs)`, NaN where it was not measured.
    families
        Lines of the same number are left out together, shape `(n_lines,)`.
    penalty
        Ridge penalty per gene; `penalty * n_genes` is added to the diagonal of the kernel.
    """
    from scipy.linalg import cho_factor
    from scipy.linalg.lapack import dpotri

    n_lines, n_genes = Z.shape
    kernel = Z @ Z.T
    dual = np.zeros((n_lines, Y.shape[1]))
    level, held, held_mean = np.zeros(Y.shape[1]), np.full(Y.shape, np.nan), np.full(Y.shape, np.nan)
    for j, y in enumerate(Y.T):
        rows = np.flatnonzero(np.isfinite(y))
        part = np.asfortranarray(kernel[np.ix_(rows, rows)])
        part.flat[:: len(rows) + 1] += penalty * n_genes
        factor, _ = cho_factor(part, lower=True, overwrite_a=True)
        inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        border = inverse.sum(axis=1)
        level[j] = border @ y[rows] / border.sum()
        projected = inverse - np.outer(border, border) / border.sum()
        alpha = projected @ y[rows]
        dual[rows, j] = alpha
        held[rows, j], held_mean[rows, j] = _leave_out(projected, alpha, y[rows], families[rows])
    return DrugRidge(Z.T @ dual, level, held, held_mean)


def _leave_out(
    projected: np.ndarray, alpha: np.ndarray, y: np.ndarray, families: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and means by fits without each family: `y_G - P_GG^-1 alpha_G`."""
    error = alpha / np.diag(projected)
    _, codes, sizes = np.unique(families, return_inverse=True, return_counts=True)
    total = np.bincount(codes, weights=y)
    mean = (y.sum() - total[codes]) / np.maximum(len(y) - sizes[codes], 1)
    for family in np.flatnonzero(sizes > 1):
        rows = np.flatnonzero(codes == family)
        error[rows] = np.linalg.solve(projected[np.ix_(rows, rows)], alpha[rows])
    return y - error, mean
