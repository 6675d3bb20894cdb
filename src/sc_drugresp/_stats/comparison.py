"""Comparing models over data sets, and how many more samples a firm answer needs.

Demsar (2006, J. Mach. Learn. Res. 7:1-30): Friedman's test and Nemenyi's critical difference for many models, Wilcoxon's
signed-rank test for two; a data set is one observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
_FEWEST_DATASETS = 5


@dataclass(frozen=True)
class Comparison:
    """Models ranked over data sets.

    Parameters
    ----------
    ranks
        Mean rank of each model, 1 is best; ties share.
    friedman_p
        P-value that all models are equal; NaN with fewer than three models or two data sets.
    critical_difference
        Mean ranks that are closer than this are not told apart at the level of 5 %.
    pairs
        `first`, `second`, `difference` (mean), `p_value` (Wilcoxon, two-sided), `p_adjusted` (Holm).
    n_datasets
        Data sets on which every model has a score; the others are left out.
    caution
        What limits the comparison, in words; empty if nothing does.
    """

    ranks: pd.Series
    friedman_p: float
    critical_difference: float
    pairs: pd.DataFrame
    n_datasets: int
    caution: str


def compare_models(scores: pd.DataFrame) -> Comparison:
    """Compare models over data sets, a higher score being better.

    Parameters
    ----------
    scores
        One row per data set, one column per model. Rows with missing scores are left out.

    Returns
    -------
    :class:`Comparison`.

    Raises
    ------
    ValueError
        Fewer than two models, or no data set on which all have a score.
    """
    import pandas as pd
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    complete = scores.dropna(axis=0)
    n, k = complete.shape
    if k < 2 or n < 1:
        msg = f"Expected two or more models that all have a score on some data set, found {k} models and {n} data sets."
        raise ValueError(msg)
    values = complete.to_numpy(dtype=float)
    ranks = rankdata(-values, axis=1).mean(axis=0)
    differ = k > 2 and n > 1 and not np.all(values == values[:, :1])
    friedman_p = float(friedmanchisquare(*values.T).pvalue) if differ else float("nan")
    difference = float(studentized_range.ppf(1 - LEVEL, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    caution = ""
    if n < _FEWEST_DATASETS:
        smallest = 2.0 ** (1 - n)
        caution = f"{n} data sets: Wilcoxon's smallest two-sided p-value is {smallest:.2g}, no difference can be shown."
    ranked = pd.Series(ranks, index=complete.columns, name="rank").sort_values(kind="stable")
    return Comparison(ranked, friedman_p, difference, _pairs(values, list(complete.columns)), n, caution)


def _pairs(values: np.ndarray, names: list[str]) -> pd.DataFrame:
    import pandas as pd
    from scipy.stats import wilcoxon
    from statsmodels.stats.multitest import multipletests

    rows = []
    for (first, x), (second, y) in combinations(zip(names, values.T), 2):
        gap = x - y
        # Without any difference there is nothing to test.
        p = float(wilcoxon(gap[gap != 0]).pvalue) if (gap != 0).any() else 1.0
        rows.append((first, second, float(gap.mean()), p))
    frame = pd.DataFrame(rows, columns=["first", "second", "difference", "p_value"])
    frame["p_adjusted"] = multipletests(frame["p_value"], method="holm")[1]
    return frame


def further_samples(n_samples: int, half_width: float, wanted: float) -> int:
    """Samples to add until an estimate is known to +- `wanted`; its variance falls with the number of samples.

    Parameters
    ----------
    n_samples
        Present samples.
    half_width
        Half-width of the present 95 % interval.
    wanted
        Wanted half-width.
    """
    return max(0, int(np.ceil(n_samples * (half_width / wanted) ** 2)) - n_samples)
