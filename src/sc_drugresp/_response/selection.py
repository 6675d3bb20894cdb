"""How a choice between heads came about, and what it promised beside what it kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .fit import choose_setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fit import Trial
    from .fitters import HeadSetting

    Scores = Sequence[tuple[np.ndarray, np.ndarray]]
    """Of each fold: codes of the tested samples and their scores."""


def describe_selection(
    settings: Sequence[HeadSetting],
    trials: Sequence[Trial | None],
    scores: Sequence[Scores],
    classes: np.ndarray,
    chosen: HeadSetting,
) -> dict[str, Any]:
    """Inner scores of what could be chosen, the score of the choice on samples that had no part in it, and their gap.

    Parameters
    ----------
    settings, trials, chosen
        What could be chosen, how it did inside each fold, and what was chosen for all folds.
    scores
        Scores of the tested samples for each setting and fold.
    classes
        Class of each sample: 0 resistant, 1 sensitive, 2 both (not scored).

    Returns
    -------
    `head`, `C` (of a logistic regression) and `share` (of `'mil'`); where there was a choice also `inner_auroc` (by kind
    of head, samples held out of training sets), `nested_auroc` (each fold with its own choice, pairs of samples that one
    fold tested) and `optimism`, the inner AUROC of what was chosen minus the nested one.
    """
    out: dict[str, Any] = {"head": chosen.kind}
    out |= {"C": chosen.C} if chosen.kind in ("logistic", "mil") else {}
    out |= {"share": chosen.share} if chosen.kind == "mil" else {}
    known = [(fold, trial) for fold, trial in enumerate(trials) if trial is not None]
    if not known:
        return out
    inner = np.mean([trial.auroc for _, trial in known], axis=0)
    out["inner_auroc"] = {
        kind: float(inner[settings.index(choose_setting(same, [trial.only(at) for _, trial in known]))])
        for kind in dict.fromkeys(setting.kind for setting in settings)
        for at in [[i for i, setting in enumerate(settings) if setting.kind == kind]]
        for same in [[settings[i] for i in at]]
    }
    own = [scores[settings.index(choose_setting(settings, [trial]))][fold] for fold, trial in known]
    nested = concordance(own, classes)
    if np.isfinite(nested):
        out |= {"nested_auroc": nested, "optimism": float(inner[settings.index(chosen)] - nested)}
    return out


def concordance(scores: Scores, classes: np.ndarray) -> float:
    """Share of the pairs of a sensitive and a resistant sample of one fold that are ranked right; NaN without a pair.

    Scores of different folds, by different heads, are never compared.
    """
    right, pairs = 0.0, 0
    for where, score in scores:
        gaps = score[classes[where] == 1][:, None] - score[classes[where] == 0]
        right += (gaps > 0).sum() + (gaps == 0).sum() / 2
        pairs += gaps.size
    return float(right / pairs) if pairs else float("nan")
