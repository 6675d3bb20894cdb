"""Decide what a head needs decided (penalty, kind) by cross-validation over the samples that it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import roc_auc_score

from .._stats.groups import balanced_weights, encode_groups, group_classes, groups_per_class, spread_rows
from .fitters import DEFAULT_C, MIL_C, SHARE, HeadSetting, fit_setting, fit_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .heads import Head, HeadChoice

C_GRID = (1e-3, 1e-2, 1e-1, 1.0)
MIN_TO_TUNE = 3
"""Samples of each class below which nothing is chosen: the default is as good as any choice."""
MIN_FOR_AUTO = 6
"""Samples of each class below which `head='auto'` is `'logistic'`: with 4 choosing gains as much as it loses."""
_INNER_FOLDS = 5
_MOST_CELLS = 20_000
"""Cells on which settings are tried, evenly spread over samples and classes."""


def settings_for(
    head: HeadChoice, y: np.ndarray, groups: np.ndarray, *, tune: bool = True, C: float | None = None
) -> list[HeadSetting]:
    """What is to be chosen from; the first is the default.

    Parameters
    ----------
    head
        Kind of head, or `'auto'`.
    y, groups
        All labeled cells: `'auto'` chooses only with 6 samples of each class.
    tune, C
        A penalty that is given, or `tune=False`, leaves nothing to be chosen for `'logistic'`.
    """
    grid = (C,) if C is not None else (DEFAULT_C, *(c for c in C_GRID if c != DEFAULT_C)) if tune else (DEFAULT_C,)
    logistic = [HeadSetting("logistic", c) for c in grid]
    lda = [HeadSetting("pseudobulk_lda")]
    mil = [HeadSetting("mil", MIL_C, share) for share in (SHARE, -SHARE)]
    if head == "auto":
        return [*logistic, *lda, *mil] if enough_for_auto(y, groups) else logistic
    return {"logistic": logistic, "pseudobulk_lda": lda, "mil": mil, "mlp": [HeadSetting("mlp")]}[head]


def enough_for_auto(y: np.ndarray, groups: np.ndarray) -> bool:
    """Whether there are samples enough to compare heads."""
    return min(groups_per_class(y, encode_groups(groups)[0])) >= MIN_FOR_AUTO


@dataclass(frozen=True)
class Trial:
    """How settings did on samples that were held out of a training set, shape `(n_settings,)` each.

    Parameters
    ----------
    loss
        Log loss of cells, balanced over classes and samples, summed over inner folds.
    auroc
        AUROC of the scores of samples.
    """

    loss: np.ndarray
    auroc: np.ndarray

    def only(self, at: Sequence[int]) -> Trial:
        """The same for some of the settings."""
        return Trial(self.loss[at], self.auroc[at])


def try_settings(
    settings: Sequence[HeadSetting], x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, rng: int = 0
) -> Trial | None:
    """Fit every setting to parts of the samples and score it on the others; `None` with fewer than 3 of a class.

    Samples are dealt out to at most five parts class by class.
    """
    codes, names = encode_groups(groups)
    rows = spread_rows(np.arange(len(y)), codes * 2 + y, _MOST_CELLS)
    if len(rows) < len(y):
        x, y, codes = x[rows], y[rows], codes[rows]
    per_class = min(groups_per_class(y, codes))
    if len(settings) < 2 or per_class < MIN_TO_TUNE:
        return None
    classes = group_classes(y, codes, len(names))
    order = np.lexsort((np.random.default_rng(rng).permutation(len(names)), classes))
    part = np.empty(len(names), dtype=np.intp)
    part[order] = np.arange(len(names)) % min(_INNER_FOLDS, per_class)
    loss = np.zeros(len(settings))
    scores = np.full((len(settings), len(names)), np.nan)
    for held in np.unique(part):
        test = part[codes] == held
        if len(np.unique(y[~test])) < 2:
            continue
        weights = balanced_weights(y[test], codes[test])
        x_test = x[test]
        for i, head in enumerate(fit_settings(settings, x[~test], y[~test], codes[~test], rng=rng)):
            logit = head.logit(x_test)
            known = np.isfinite(logit)
            # Not through a probability, which would be 0 or 1 far out.
            signed = np.where(y[test] == 1, -logit, logit)[known]
            loss[i] += np.average(np.logaddexp(0, signed), weights=weights[known])
            where, score = head.sample_logit(x_test, codes[test])
            scores[i, where] = score
    usable = (classes < 2) & np.isfinite(scores).all(axis=0)
    if len(np.unique(classes[usable])) < 2:
        return Trial(loss, np.full(len(settings), 0.5))
    return Trial(loss, np.array([roc_auc_score(classes[usable], score[usable]) for score in scores]))


def choose_setting(settings: Sequence[HeadSetting], trials: Sequence[Trial | None]) -> HeadSetting:
    """The setting that did best over all trials together; the default where there is none.

    A penalty is chosen by log loss, since it sets the scale of the logits; anything else by the AUROC of samples.
    """
    known = [trial for trial in trials if trial is not None]
    if not known:
        return settings[0]
    loss, auroc = (np.mean([getattr(trial, name) for trial in known], axis=0) for name in ("loss", "auroc"))
    best: dict[str, int] = {}
    for i, setting in enumerate(settings):
        value, kept = (-loss if setting.kind == "logistic" else auroc), best.get(setting.kind)
        if kept is None or value[i] > value[kept] + 1e-12:
            best[setting.kind] = i
    return settings[max(best.values(), key=lambda i: (round(auroc[i], 12), -i))]


def fit_head(
    kind: HeadChoice,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    rng: int = 0,
    **options: Any,
) -> Head:
    """Choose what is to be chosen on these cells, and fit; see :func:`~sc_drugresp._response.fitters.fit_setting`.

    A calibration that is made from the folds of a cross-validation needs heads with *its* setting instead, see
    :func:`~sc_drugresp._response.crossfit.cross_validate`.

    Parameters
    ----------
    kind
        Kind of head.
    x, y, groups
        Embedding (rows with NaN are ignored), label and sample of each cell.
    rng
        Seed.
    options
        `tune` and `C`, as in :func:`settings_for`.

    Raises
    ------
    ValueError
        There is only one class.
    """
    settings = settings_for(kind, y, groups, **options)
    return fit_setting(choose_setting(settings, [try_settings(settings, x, y, groups, rng=rng)]), x, y, groups, rng=rng)
