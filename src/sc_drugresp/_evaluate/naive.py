"""Naive baselines on the same folds: what no model of drug response should score below.

`constant`
    The better of the two constant answers, metric by metric (F1 of always answering `sensitive`, and so on).
`prevalence`
    The share of sensitive cells, for every cell.
`qc`
    Library size, genes detected, mitochondrial share: above 0.5 means that something technical goes with the label.
`design_only`
    Columns of `.obs` and quality control, by patient, without any expression: above 0.5 means that a score can come from how
    the samples were measured.
`pseudobulk_ridge`
    Mean profile of each sample, ridge regression.
`pca_logistic`
    50 principal components of 2,000 variable genes, refitted in every fold, logistic regression.
`hvg_boosting`
    The 500 most variable genes, chosen in every fold, gradient boosting; averaged over at most three pairings.
`permuted_labels`
    PCA and logistic regression after the labels were dealt out to the samples at random: the mean of ten and their 2.5 %
    to 97.5 % range, each with a single pairing. Under a random split of cells this is what recognizing samples is worth. The components, which know nothing
    of labels, are fitted once to all cells; the folds are made anew for every set of labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.rng import short_seed
from .._response.crossfit import cross_validate_repeats, mean_of
from .._response.features import FittedFeatures, FixedFeatures
from .._stats.groups import balanced_weights
from .._stats.intervals import MACRO
from .._stats.metrics import CALIBRATION_METRICS, METRICS, classification_metrics, macro_average, sample_scores
from .design_only import DESIGN_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .._data import CountSource
    from .._response.crossfit import HeadFitter
    from .._response.features import Features
    from .._response.heads import HeadChoice
    from .._stats.folds import Fold

PERMUTED = "permuted_labels"
NAIVE = ("constant", "prevalence", "qc", DESIGN_ONLY, "pseudobulk_ridge", "pca_logistic", "hvg_boosting", PERMUTED)
BOOSTING = {"max_iter": 50, "max_features": 0.2, "max_leaf_nodes": 15, "early_stopping": False}
"""A baseline, not a contest: fifty small trees that see a fifth of the genes each."""
BOOSTING_GENES, BOOSTING_CELLS, BOOSTING_BINS, BOOSTING_REPEATS = 500, 5_000, 32, 3
_RIDGE_ALPHAS = tuple(np.logspace(0, 6, 7).tolist())


@dataclass(frozen=True)
class NaiveBaseline:
    """Features that need no model, the head on them, its options, and over how many pairings at most it is averaged."""

    features: Features
    head: Any = "logistic"
    options: Mapping[str, Any] = field(default_factory=dict)
    most_repeats: int | None = None


def naive_baselines(
    source: CountSource,
    groups: np.ndarray,
    qc: np.ndarray,
    *,
    design: NaiveBaseline | None = None,
    known: Iterable[Features] = (),
    rng: int = 0,
) -> dict[str, NaiveBaseline]:
    """The baselines that learn, for the labeled cells that `source` reads and `qc` (see `qc_features`) describes.

    `design` is the row of columns of `.obs`, where there are any.

    PCA and variable genes that are among the `known` features already are not fitted twice.
    """
    from ..models.baselines import HVG, PCA

    def fitted(name: str, embedder: Any) -> FittedFeatures:
        new = FittedFeatures(name, embedder, source, rng=rng)
        return next((f for f in known if isinstance(f, FittedFeatures) and f.same_as(new)), new)

    hvg = fitted("hvg", HVG())
    fixed = FixedFeatures(PERMUTED, PCA().fit(source, rng=rng).transform(source))
    return {
        "qc": NaiveBaseline(FixedFeatures("qc", qc), options={"C": 1.0}),
        **({DESIGN_ONLY: design} if design else {}),
        "pseudobulk_ridge": NaiveBaseline(PseudobulkFeatures(hvg, groups), fit_ridge),
        "pca_logistic": NaiveBaseline(fitted("pca_logistic", PCA())),
        "hvg_boosting": NaiveBaseline(MostVariable(hvg, BOOSTING_GENES), fit_boosting, most_repeats=BOOSTING_REPEATS),
        PERMUTED: NaiveBaseline(fixed, options={"tune": False}),
    }


class MostVariable:
    """The columns that vary most among the training cells."""

    name = "hvg_boosting"

    def __init__(self, features: Features, n: int) -> None:
        self.features, self.n = features, n

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Some columns of both parts, chosen on the first."""
        x_train, x_test = self.features.split(train, test, shown)
        chosen = np.sort(np.argsort(-x_train.var(axis=0), kind="stable")[: self.n])
        return x_train[:, chosen], x_test[:, chosen]


class PseudobulkFeatures:
    """The mean of each sample's cells, given to each of them; training and test cells are averaged apart."""

    name = "pseudobulk_ridge"

    def __init__(self, features: Features, groups: np.ndarray) -> None:
        self.features, self.groups = features, np.asarray(groups)

    def split(
        self, train: np.ndarray, test: np.ndarray, shown: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sample means of both parts."""
        x_train, x_test = self.features.split(train, test, shown)
        return group_means(x_train, self.groups[train if shown is None else shown]), group_means(
            x_test, self.groups[test]
        )


def group_means(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Replace each row by the mean of its group."""
    from scipy import sparse

    index = np.unique(groups, return_inverse=True)[1]
    members = sparse.csr_matrix((np.ones(len(index)), index, np.arange(len(index) + 1)))
    return ((members.T @ x) / np.bincount(index)[:, None])[index]


@dataclass(frozen=True)
class RidgeHead:
    """Ridge regression of -1 (resistant) and 1 (sensitive) on standardized profiles."""

    mean: np.ndarray
    scale: np.ndarray
    model: Any

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Twice the fitted value, so that -1 and 1 become P = 0.12 and 0.88."""
        return 2 * self.model.predict((np.asarray(x) - self.mean) / self.scale)


def fit_ridge(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int = 0) -> RidgeHead:
    """Fit to one row per sample and class, classes weighing the same; penalty by leave-one-out (RidgeCV)."""
    from sklearn.linear_model import RidgeCV

    _, first = np.unique(np.column_stack([np.unique(groups, return_inverse=True)[1], y]), axis=0, return_index=True)
    rows, labels = x[first], y[first]
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    weights = np.where(labels == 1, 1 / max((labels == 1).sum(), 1), 1 / max((labels == 0).sum(), 1))
    model = RidgeCV(alphas=_RIDGE_ALPHAS).fit(
        (rows - mean) / scale, 2.0 * labels - 1, sample_weight=weights * len(labels) / 2
    )
    return RidgeHead(mean, scale, model)


@dataclass(frozen=True)
class BoostingHead:
    """Boosted trees of scikit-learn on values that were cut into bins.

    Trees see only the order of values, so that bins lose little, and scikit-learn need not find weighted quantiles of
    every column, which takes longer than growing the trees.
    """

    edges: np.ndarray
    model: Any

    def logit(self, x: np.ndarray) -> np.ndarray:
        """Log-odds of `sensitive`."""
        return self.model.decision_function(in_bins(x, self.edges))


def fit_boosting(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int = 0) -> BoostingHead:
    """Gradient boosting in which classes, and samples within them, weigh the same; on at most 5,000 cells, evenly spread."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if len(x) > BOOSTING_CELLS:
        rows = np.linspace(0, len(x) - 1, BOOSTING_CELLS).astype(np.int64)
        x, y, groups = x[rows], y[rows], groups[rows]
    edges = np.quantile(x, np.linspace(0, 1, BOOSTING_BINS + 1)[1:-1], axis=0)
    model = HistGradientBoostingClassifier(random_state=short_seed(rng), **BOOSTING)
    return BoostingHead(edges, model.fit(in_bins(x, edges), y, sample_weight=balanced_weights(y, groups)))


def in_bins(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of edges at or below each value, column by column."""
    bins = [np.searchsorted(cuts, values, side="right") for cuts, values in zip(edges.T, x.T)]
    return np.column_stack(bins).astype(np.float32)


def constant_scores(y: np.ndarray, datasets: np.ndarray) -> dict[str, dict[str, float]]:
    """The better of the two constant answers for each metric, per data set and as their mean."""
    out = {}
    for name in np.unique(datasets):
        rows = datasets == name
        always = [classification_metrics(y[rows], np.full(int(rows.sum()), p)) for p in (1.0, 0.0)]
        out[str(name)] = {metric: _better(metric, [scores[metric] for scores in always]) for metric in METRICS}
    out[MACRO] = macro_average(list(out.values()))
    return out


def _better(metric: str, values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return float("nan")
    return min(known) if metric in CALIBRATION_METRICS else max(known)


def prevalence_prediction(y: np.ndarray, datasets: np.ndarray) -> np.ndarray:
    """The share of sensitive cells of each data set, for all its cells."""
    index = np.unique(datasets, return_inverse=True)[1]
    return (np.bincount(index, y) / np.bincount(index))[index]


def permute_labels(y: np.ndarray, units: np.ndarray, datasets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deal the labels out again: between the samples of a data set; within samples that hold both classes."""
    out = y.copy()
    for name in np.unique(datasets):
        rows = np.flatnonzero(datasets == name)
        names, index = np.unique(units[rows], return_inverse=True)
        share = np.bincount(index, y[rows]) / np.bincount(index)
        pure = np.flatnonzero((share == 0) | (share == 1))
        dealt = share.copy()
        dealt[pure] = rng.permutation(share[pure])
        out[rows] = dealt[index].round().astype(out.dtype)
        for unit in np.setdiff1d(np.arange(len(names)), pure):
            cells = rows[index == unit]
            out[cells] = rng.permutation(y[cells])
    return out


def permuted_scores(
    features: Features,
    y: np.ndarray,
    units: np.ndarray,
    datasets: np.ndarray,
    folds: Callable[[np.ndarray], Sequence[Sequence[Fold]]],
    *,
    head: HeadChoice | HeadFitter = "logistic",
    n: int = 10,
    rng: int = 0,
    **options: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """Metrics of models that were learned from labels dealt out at random, averaged over data sets.

    `folds` makes the repeats of the folds from the labels, as they were made from the true ones; scores are averaged over
    repeats.

    Returns
    -------
    By cell (`'cell'`) and by mean scores of samples (`'sample'`): metric to an array of shape `(n,)`.
    """
    generator = np.random.default_rng(rng)
    rows: dict[str, list[dict[str, float]]] = {"cell": [], "sample": []}
    for _ in range(n):
        dealt = permute_labels(y, units, datasets, generator)
        outs = cross_validate_repeats(features, dealt, units, folds(dealt), head=head, rng=rng, **options)
        out = mean_of(outs)
        parts: dict[str, list[dict[str, float]]] = {"cell": [], "sample": []}
        for name in np.unique(datasets[out.scored]):
            keep = out.scored & (datasets == name)
            samples = sample_scores(dealt[keep], out.whole(units)[keep], units[keep])
            parts["cell"].append(classification_metrics(dealt[keep], out.prob[keep]))
            parts["sample"].append(classification_metrics(samples.y, samples.prob))
        for level, found in parts.items():
            rows[level].append(macro_average(found))
    return {level: {m: np.array([row[m] for row in found]) for m in METRICS} for level, found in rows.items()}


def refit_p_value(value: float, null: np.ndarray) -> float:
    """One-sided p-value of a score against scores of refitted models; NaN where nothing can be compared."""
    known = null[np.isfinite(null)]
    if not len(known) or not np.isfinite(value):
        return float("nan")
    return float((np.sum(known >= value - 1e-12) + 1) / (len(known) + 1))
