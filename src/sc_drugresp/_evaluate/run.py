"""The driver: folds, features that are fitted inside them, out-of-fold probabilities, tidy scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._core.progress import progress
from .._stats.intervals import MACRO, BootstrapMethod, Interval, metric_intervals
from .._stats.metrics import METRICS, sample_scores
from .._stats.permutation import Permutation, permutation_test

if TYPE_CHECKING:
    from .._data import CountSource
    from .._stats.folds import Fold

HeadFitter = Callable[..., Any]
"""`(x, y, groups, *, rng, **options)` to an object with `logit(x)`."""
_CACHE_BYTES = 2**28


class Features(Protocol):
    """What a head learns from. `split` must not let the test rows influence what is fitted to the training rows."""

    @property
    def name(self) -> str:
        """Name of the row in the table."""
        ...

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of the training and of the test cells, float arrays `(cells, dim)`."""
        ...


@dataclass(frozen=True)
class FixedFeatures:
    """An embedding that was computed before; `caution` says what it may have seen of the test cells."""

    name: str
    x: np.ndarray
    caution: str = ""

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the embedding."""
        return self.x[train], self.x[test]


class FittedFeatures:
    """An embedder with `needs_fit=True`: fitted to the training rows again in every fold.

    Parameters
    ----------
    name
        Name of the row in the table.
    make
        Makes a fresh embedder with `fit(source, rng=, mask_obs=)` and `transform(source)`.
    source
        Reader of the labeled cells, in the order of the folds' rows.
    rng
        Seed.
    """

    def __init__(self, name: str, make: Callable[[], Any], source: CountSource, *, rng: int = 0) -> None:
        self.name, self.make, self.source, self.rng = name, make, source, rng
        self._cache: dict[bytes, np.ndarray] = {}

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit to the training rows, transform both parts."""
        mask = np.zeros(self.source.n_obs, dtype=bool)
        mask[train] = True
        key = np.packbits(mask).tobytes()
        if key not in self._cache:
            embedder = self.make()
            if hasattr(embedder, "transform"):
                x = embedder.fit(self.source, rng=self.rng, mask_obs=mask).transform(self.source)
            else:
                x = embedder.embed(self.source, rng=self.rng, mask_obs=mask)
            if sum(kept.nbytes for kept in self._cache.values()) + x.nbytes > _CACHE_BYTES:
                self._cache.clear()
            self._cache[key] = x
        return self._cache[key][train], self._cache[key][test]


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for cells by heads that did not see them.

    Parameters
    ----------
    prob
        P(sensitive), NaN for cells that no fold tested; the mean where several folds did.
    fold
        Index of the last fold that tested the cell, -1 for none.
    n_abstained
        Cells that had no embedding and got 0.5.
    notes
        What was unusual, in words.
    """

    prob: np.ndarray
    fold: np.ndarray
    n_abstained: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def scored(self) -> np.ndarray:
        """Mask of the tested cells."""
        return self.fold >= 0


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """Probability of a logit, without overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(logit, dtype=np.float64) / 2))


def head_fitter(head: str | HeadFitter) -> HeadFitter:
    """A fitter by name (see `fit_head`) or as it is."""
    if callable(head):
        return head

    def fit(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int, **options: Any) -> Any:
        from .._response.fit import fit_head

        return fit_head(head, x, y, groups, rng=rng, **options)  # type: ignore[arg-type]

    return fit


def cross_validate(
    features: Features,
    y: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Fold],
    *,
    head: str | HeadFitter = "logistic",
    grid: Sequence[Mapping[str, Any]] = (),
    rng: int = 0,
    **options: Any,
) -> OutOfFold:
    """Fit on the training cells of every fold and predict its test cells.

    Parameters
    ----------
    features
        Embedding, fixed or fitted inside the folds.
    y
        1 sensitive, 0 resistant, per cell.
    groups
        Sample of each cell: unit of balancing and of tuning.
    folds
        The split.
    head
        `'logistic'`, `'mlp'`, or a fitter.
    grid
        Options to choose among by cross-validation over the training groups of each fold (nested).
    rng
        Seed of the head.
    options
        Options of the head.

    Returns
    -------
    :class:`OutOfFold`.
    """
    fit = head_fitter(head)
    total, times = np.zeros(len(y)), np.zeros(len(y), dtype=np.int64)
    last = np.full(len(y), -1, dtype=np.int64)
    abstained, notes = 0, []
    for number, fold in enumerate(progress(folds, total=len(folds), desc=features.name, unit="folds")):
        if np.intersect1d(fold.train, fold.test).size:
            msg = f"Fold {fold.name!r} tests cells that it learns from."
            raise ValueError(msg)
        last[fold.test] = number
        times[fold.test] += 1
        if len(np.unique(y[fold.train])) < 2:
            notes.append(f"fold {fold.name!r} has one class in training; its cells get P(sensitive) = 0.5")
            total[fold.test] += 0.5
            continue
        x_train, x_test = features.split(fold.train, fold.test)
        chosen = dict(options)
        if grid:
            chosen |= choose_options(fit, x_train, y[fold.train], groups[fold.train], grid, rng=rng)
        prob = sigmoid(fit(x_train, y[fold.train], groups[fold.train], rng=rng, **chosen).logit(x_test))
        empty = np.isnan(prob)
        abstained += int(empty.sum())
        total[fold.test] += np.where(empty, 0.5, prob)
    if abstained:
        notes.append(f"{abstained} cells have no embedding; they get P(sensitive) = 0.5 and are scored like all others")
    with np.errstate(invalid="ignore"):
        prob = np.where(times > 0, total / np.maximum(times, 1), np.nan)
    return OutOfFold(prob, last, abstained, tuple(notes))


def choose_options(
    fit: HeadFitter,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    grid: Sequence[Mapping[str, Any]],
    *,
    rng: int = 0,
    n_splits: int = 5,
) -> dict[str, Any]:
    """Options with the lowest balanced log loss on held-out groups; the first ones where too few groups allow none."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    from .._response.fit import balanced_weights

    per_class = min(len(np.unique(groups[y == label])) for label in (0, 1))
    if per_class < 2 or len(grid) < 2:
        return dict(grid[0])
    losses = np.zeros(len(grid))
    for train, test in StratifiedGroupKFold(min(n_splits, per_class)).split(x, y, groups):
        if len(np.unique(y[train])) < 2:
            continue
        weights = balanced_weights(y[test], groups[test])
        for i, options in enumerate(grid):
            prob = sigmoid(fit(x[train], y[train], groups[train], rng=rng, **options).logit(x[test]))
            losses[i] += log_loss(y[test], np.nan_to_num(prob, nan=0.5), labels=[0, 1], sample_weight=weights)
    return dict(grid[int(np.argmin(losses))])


def score_rows(
    model: str,
    protocol: str,
    y: np.ndarray,
    prob: np.ndarray,
    units: np.ndarray,
    datasets: np.ndarray,
    *,
    kind: str = "model",
    n_labeled: int = 0,
    n_boot: int = 1000,
    n_permutations: int = 1000,
    level: float = 0.95,
    method: BootstrapMethod = "percentile",
    rng: int = 0,
) -> list[dict[str, Any]]:
    """Tidy rows of all metrics: by cell and by sample, per data set and averaged over data sets (`'macro'`).

    Cells whose `prob` is NaN were not tested and are left out. The p-values are those of AUROC, one-sided, against
    labels dealt out to the units of each data set at random while the scores are held fixed; they are NaN for all other
    metrics and with `n_permutations=0`.
    """
    keep = ~np.isnan(prob)
    y, prob, units, datasets = y[keep], prob[keep], units[keep], datasets[keep].astype(str)
    rows: list[dict[str, Any]] = []
    for by in ("cell", "sample"):
        if by == "cell":
            parts = (y, prob, np.char.add(np.char.add(datasets, "\t"), units.astype(str)), datasets)
            right: dict[str, int] = {}
        else:
            parts, right = _by_sample(y, prob, units, datasets)
        if not len(parts[0]):
            continue
        scores = metric_intervals(*parts, n_boot=n_boot, level=level, method=method, rng=rng)
        p_values = _p_values(*parts, n_permutations=n_permutations, rng=rng)
        for name, metrics in scores.items():
            shown = dict(metrics)
            if by == "sample":
                shown["samples_right"] = Interval(float(right[name]), np.nan, np.nan, metrics["auroc"].n_groups)
            for metric, interval in shown.items():
                rows.append(
                    {
                        "model": model,
                        "kind": kind,
                        "protocol": protocol,
                        "n_labeled": n_labeled,
                        "dataset": name,
                        "level": by,
                        "metric": metric,
                        "value": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                        "n_groups": interval.n_groups,
                        "p_value": p_values.get(name, np.nan) if metric == "auroc" else np.nan,
                    }
                )
    return rows


def _by_sample(
    y: np.ndarray, prob: np.ndarray, units: np.ndarray, datasets: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, int]]:
    labels, means, names, where, right = [], [], [], [], {}
    for dataset in np.unique(datasets):
        rows = datasets == dataset
        samples = sample_scores(y[rows], prob[rows], units[rows])
        right[str(dataset)] = samples.n_right
        labels.append(samples.y)
        means.append(samples.prob)
        names.append([f"{dataset}\t{group}" for group in samples.groups])
        where.append([dataset] * len(samples.y))
    right[MACRO] = sum(right.values())
    parts = (np.concatenate(labels), np.concatenate(means), np.concatenate(names), np.concatenate(where))
    return (parts[0].astype(int), parts[1], parts[2].astype(str), parts[3].astype(str)), right


def _p_values(
    y: np.ndarray, prob: np.ndarray, units: np.ndarray, datasets: np.ndarray, *, n_permutations: int, rng: int
) -> dict[str, float]:
    """One p-value per data set; for their mean AUROC, independent draws of every data set are averaged."""
    if not n_permutations:
        return {}
    generator = np.random.default_rng(rng)
    tests: dict[str, Permutation] = {}
    for name in np.unique(datasets):
        rows = datasets == name
        tests[str(name)] = permutation_test(
            y[rows], prob[rows], units[rows], n_permutations=n_permutations, rng=generator
        )
    out = {name: test.p_value for name, test in tests.items()}
    usable = [test for test in tests.values() if len(test.null)]
    if len(tests) == 1:
        out[MACRO] = next(iter(out.values()))
    elif usable:
        null = np.mean([generator.choice(test.null, n_permutations) for test in usable], axis=0)
        value = np.mean([test.value for test in usable])
        out[MACRO] = float((np.sum(null >= value - 1e-12) + 1) / (n_permutations + 1))
    return out


def metric_order() -> list[str]:
    """Metrics in the order of a printed table."""
    return [*METRICS, "samples_right"]
