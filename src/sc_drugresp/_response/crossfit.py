"""The one cross-validation loop: heads that never saw the cells they score."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from .._core.log import warn
from .._stats.groups import encode_groups, group_classes, spread_rows
from .features import each_split
from .fit import choose_setting, settings_for, try_settings
from .fitters import MOST_CELLS, HeadSetting, fit_settings
from .heads import OVER_SAMPLES, pool
from .selection import describe_selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._stats.folds import Fold
    from .features import Features
    from .fit import Trial
    from .heads import HeadChoice

    HeadFitter = Callable[..., Any]
    """`(x, y, groups, *, rng, **options)` to an object with `logit(x)`, and perhaps `sample_logit(x, groups)`."""

CENTERED = (
    "The mean of every sample is the same in {name!r}: the values were centered sample by sample. What sets samples apart, "
    "the response included, is gone, and nothing can be learned about new samples. Use values that were not centered."
)
_SAME, _FEWEST = 1e-3, 5
"""Variance of sample means, as a share of what independent cells would give, below which they were made equal; and how
many independent values that takes."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for cells and samples by heads that did not see them.

    Parameters
    ----------
    logit
        Log-odds of `sensitive`, the mean where several folds tested the cell; NaN where no head could score it.
    prob
        P(sensitive) before calibration, the mean over folds; 0.5 where a head could not score the cell (no embedding, or
        one class in training), NaN where no fold tested it.
    fold
        Index of the last fold that tested the cell, -1 for none.
    notes
        What was unusual, in words.
    samples
        Names of all samples, sorted.
    sample_logit
        Score of each sample as a whole by the heads that did not see it, the mean where several folds tested it; NaN
        where no head could score it.
    setting
        What all folds were fitted with; `None` for a fitter of one's own.
    selection
        What it is, how it was chosen and what that promised, in plain values, see
        :func:`~sc_drugresp._response.selection.describe_selection`.
    """

    logit: np.ndarray
    prob: np.ndarray
    fold: np.ndarray
    notes: tuple[str, ...] = ()
    samples: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=str))
    sample_logit: np.ndarray = field(default_factory=lambda: np.empty(0))
    setting: HeadSetting | None = None
    selection: dict[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> np.ndarray:
        """Mask of the tested cells."""
        return self.fold >= 0

    def whole(self, groups: np.ndarray) -> np.ndarray:
        """What samples are ranked by: P(sensitive) of each cell, or of its whole sample by a head over samples."""
        if self.setting is None or self.setting.kind not in OVER_SAMPLES:
            return self.prob
        at = np.searchsorted(self.samples, groups)
        return np.where(self.scored, expit(self.sample_logit[at]), np.nan)


class _Sums:
    """What the folds say of cells and samples under one setting, summed up."""

    def __init__(self, n_cells: int, n_samples: int) -> None:
        self.logit, self.prob, self.usable = np.zeros(n_cells), np.zeros(n_cells), np.zeros(n_cells, dtype=np.int64)
        self.sample, self.tested = np.zeros(n_samples), np.zeros(n_samples, dtype=np.int64)
        self.by_fold: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, head: Any, x: np.ndarray, cells: np.ndarray, codes: np.ndarray) -> int:
        """Take in what a head says of the test cells of a fold; how many it could not score."""
        logit = head.logit(x)
        whole = head.sample_logit(x, codes) if hasattr(head, "sample_logit") else pool(logit, codes)
        empty = np.isnan(logit)
        self.logit[cells] += logit
        self.usable[cells] += 1
        self.prob[cells] += np.where(empty, 0.5, expit(logit))
        where, score = (values[np.isfinite(whole[1])] for values in whole)
        self.sample[where] += score
        self.tested[where] += 1
        self.by_fold.append((where, score))
        return int(empty.sum())

    def cells(self) -> np.ndarray:
        """Mean logit of each cell; NaN where there is none."""
        return np.where(self.usable > 0, self.logit / np.maximum(self.usable, 1), np.nan)

    def samples(self) -> np.ndarray:
        """Mean logit of each sample; NaN where there is none."""
        return np.where(self.tested > 0, self.sample / np.maximum(self.tested, 1), np.nan)


class _Pass:
    """One way through the folds of a split: what each setting says of the tested cells and samples."""

    def __init__(self, n_cells: int, names: np.ndarray, n_settings: int) -> None:
        self.names = names
        self.sums = [_Sums(n_cells, len(names)) for _ in range(n_settings)]
        self.trials: list[Trial | None] = []
        self.times, self.one_class = np.zeros(n_cells, dtype=np.int64), np.zeros(n_cells, dtype=np.int64)
        self.last = np.full(n_cells, -1, dtype=np.int64)
        self.n_folds = self.abstained = 0
        self.notes: list[str] = []

    def _count(self, fold: Fold) -> None:
        self.last[fold.test] = self.n_folds
        self.times[fold.test] += 1
        self.n_folds += 1

    def skip(self, fold: Fold) -> None:
        """A fold from which nothing can be learned."""
        self._count(fold)
        self.notes.append(f"fold {fold.name!r} has one class in training; its cells get P(sensitive) = 0.5")
        self.one_class[fold.test] += 1

    def add(self, fold: Fold, heads: Iterable[Any], x: np.ndarray, codes: np.ndarray, trial: Trial | None) -> None:
        """Take in the heads of a fold, one for each setting, and how the settings did inside its training cells."""
        self._count(fold)
        self.trials.append(trial)
        empty = [found.add(head, x, fold.test, codes) for head, found in zip(heads, self.sums)]
        self.abstained += empty[-1]

    def finish(
        self, settings: Sequence[HeadSetting], chosen: HeadSetting, classes: np.ndarray, *, own: bool
    ) -> OutOfFold:
        """Predictions under the setting that was chosen."""
        if self.abstained:
            self.notes.append(
                f"{self.abstained} cells have no embedding; they get P(sensitive) = 0.5 and are scored like all others"
            )
        kept = self.sums[settings.index(chosen)]
        scores = [found.by_fold for found in self.sums]
        prob = np.where(self.times > 0, (kept.prob + self.one_class / 2) / np.maximum(self.times, 1), np.nan)
        return OutOfFold(
            kept.cells(),
            prob,
            self.last,
            tuple(self.notes),
            samples=self.names,
            sample_logit=kept.samples(),
            setting=None if own else chosen,
            selection={} if own else describe_selection(settings, self.trials, scores, classes, chosen),
        )


def mean_of(repeats: Sequence[OutOfFold]) -> OutOfFold:
    """Mean predictions over repeats of a split that test the same cells; folds are those of the first."""
    if len(repeats) == 1:
        return repeats[0]
    logit = np.mean([out.logit for out in repeats], axis=0)
    prob = np.mean([out.prob for out in repeats], axis=0)
    whole = np.mean([out.sample_logit for out in repeats], axis=0)
    notes = tuple(dict.fromkeys(note for out in repeats for note in out.notes))
    return replace(repeats[0], logit=logit, prob=prob, notes=notes, sample_logit=whole)


def cross_validate(
    features: Features,
    y: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[Fold],
    **how: Any,
) -> OutOfFold:
    """As :func:`cross_validate_repeats`, of one split."""
    return cross_validate_repeats(features, y, groups, [folds], **how)[0]


def cross_validate_repeats(
    features: Features,
    y: np.ndarray,
    groups: np.ndarray,
    repeats: Sequence[Sequence[Fold]],
    *,
    head: HeadChoice | HeadFitter = "logistic",
    rng: int = 0,
    advance: Callable[[int], Any] | None = None,
    **options: Any,
) -> list[OutOfFold]:
    """Fit on the training cells of every fold and predict its test cells.

    Heads are fitted to at most `MOST_CELLS` of the training cells, evenly spread over samples and classes.

    What is to be chosen (the penalty, the kind of head) is chosen once for all folds, since logits of heads with
    different penalties cannot be compared, pooled or calibrated together. Each fold judges the choices by
    cross-validation over its training samples, and the choice that did best over all folds is taken. A sample thus has a
    say in the choice for its own fold, through the other folds; what that is worth is on the page of the benchmark
    of heads.

    Parameters
    ----------
    features
        What a head learns from; whatever is fitted to cells is fitted to the training cells of each fold.
    y
        1 sensitive, 0 resistant, per cell.
    groups
        Sample of each cell: the unit of balancing and of tuning.
    repeats
        The split, once for every pairing of samples. A cell that is tested more than once in one of them gets the mean of its
        predictions. What is chosen is chosen for all of them.
    head, options
        Kind of head and options of :func:`~sc_drugresp._response.fit.settings_for`, or a fitter and its options.
    rng
        Seed of the head.
    advance
        Called with 1 after each fold, for a progress bar.

    Raises
    ------
    ValueError
        A fold tests cells that it learns from.
    """
    own = head if callable(head) else None
    settings = [HeadSetting()] if callable(head) else settings_for(head, y, groups, **options)
    codes, names = encode_groups(groups)
    passes = [_Pass(len(y), names, len(settings)) for _ in repeats]
    planned: list[tuple[_Pass, Fold, np.ndarray]] = []
    for one, folds in zip(passes, repeats):
        for fold in folds:
            if np.intersect1d(fold.train, fold.test).size:
                msg = f"Fold {fold.name!r} tests cells that it learns from."
                raise ValueError(msg)
            planned.append((one, fold, spread_rows(fold.train, codes * 2 + y, MOST_CELLS)))
    fitted = [(fold.train, fold.test, shown) for _, fold, shown in planned if len(np.unique(y[shown])) == 2]
    parts = each_split(features, fitted)
    for one, fold, shown in planned:
        labels, samples = y[shown], codes[shown]
        if len(np.unique(labels)) < 2:
            one.skip(fold)
        else:
            x, x_test = next(parts)
            if one is passes[0] and not (own or one.trials) and centered(x, samples):
                warn(CENTERED.format(name=features.name))
            fits = (
                [own(x, labels, samples, rng=rng, **options)]
                if own
                else fit_settings(settings, x, labels, samples, rng=rng)
            )
            one.add(fold, fits, x_test, codes[fold.test], try_settings(settings, x, labels, samples, rng=rng))
        if advance is not None:
            advance(1)
    chosen = choose_setting(settings, [trial for one in passes for trial in one.trials])
    classes = group_classes(y, codes, len(names))
    return [one.finish(settings, chosen, classes, own=own is not None) for one in passes]


def centered(x: np.ndarray, groups: np.ndarray) -> bool:
    """Whether the means of all groups were made the same: they differ far less than means of random cells do."""
    codes, names = encode_groups(groups)
    size = np.bincount(codes)[:, None]
    means = np.zeros((len(names), x.shape[1]))
    np.add.at(means, codes, x)
    means /= size
    expected = np.mean(1 / size) * np.mean((x - means[codes]) ** 2, axis=0)
    # Whole numbers are counts or names, whose means may well agree by design.
    vary = (expected > 0) & (x != np.round(x)).any(axis=0)
    if vary.sum() * (len(names) - 1) < _FEWEST:
        return False
    return bool(np.mean(means.var(axis=0, ddof=1)[vary] / expected[vary]) < _SAME)
