"""Comparing models over data sets, and how many more samples a firm answer needs.

Demsar (2006, J. Mach. Learn. Res. 7:1-30): Friedman's test and Nemenyi's critical difference for many models, Wilcoxon's
signed-rank test for two; a data set is one observation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .intervals import hanley_mcneil

if TYPE_CHECKING:
    import pandas as pd

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
        Mean ranks that are closer than this are not told apart at level `alpha`.
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


def compare_models(scores: pd.DataFrame, *, higher_is_better: bool = True, alpha: float = 0.05) -> Comparison:
    """Compare models over data sets.

    Parameters
    ----------
    scores
        One row per data set, one column per model. Rows with missing scores are left out.
    higher_is_better
        False for losses.
    alpha
        Level of the critical difference.

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
        msg = (
            f"Expected at least two models that all have a score on some data set, found {k} models and {n} data sets."
        )
        raise ValueError(msg)
    values = complete.to_numpy(dtype=float)
    ranks = rankdata(-values if higher_is_better else values, axis=1).mean(axis=0)
    differ = k > 2 and n > 1 and not np.all(values == values[:, :1])
    friedman_p = float(friedmanchisquare(*values.T).pvalue) if differ else float("nan")
    difference = float(studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    pairs = _pairs(values, list(complete.columns))
    caution = ""
    if n < _FEWEST_DATASETS:
        smallest = 2.0 ** (1 - n)
        caution = f"{n} data sets: Wilcoxon's smallest two-sided p-value is {smallest:.2g}, no difference can be shown."
    return Comparison(
        pd.Series(ranks, index=complete.columns, name="rank").sort_values(kind="stable"),
        friedman_p,
        difference,
        pairs,
        n,
        caution,
    )


def _pairs(values: np.ndarray, names: list[str]) -> pd.DataFrame:
    import pandas as pd
    from scipy.stats import wilcoxon
    from statsmodels.stats.multitest import multipletests

    rows = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            gap = values[:, i] - values[:, j]
            # Without any difference there is nothing to test.
            p = float(wilcoxon(gap[gap != 0]).pvalue) if (gap != 0).any() else 1.0
            rows.append((names[i], names[j], float(gap.mean()), p))
    frame = pd.DataFrame(rows, columns=["first", "second", "difference", "p_value"])
    frame["p_adjusted"] = multipletests(frame["p_value"], method="holm")[1]
    return frame


def samples_needed(
    auroc: float, half_width: float, *, share_sensitive: float = 0.5, level: float = 0.95, limit: int = 100_000
) -> tuple[int, int]:
    """Sensitive and resistant samples that make an AUROC over samples known to +- `half_width`.

    By the variance of Hanley and McNeil (1982) for independent samples, one score each.

    Parameters
    ----------
    auroc
        Expected AUROC, 0.5 to 1.
    half_width
        Wanted half-width of the interval.
    share_sensitive
        Share of sensitive samples among those that can be had.
    level
        Coverage of the interval.
    limit
        Most samples to consider.

    Raises
    ------
    ValueError
        A number is out of its range, or more than `limit` samples are needed.
    """
    from scipy.stats import norm

    if not (0.5 <= auroc < 1 and 0 < half_width < 0.5 and 0 < share_sensitive < 1):
        msg = (
            f"Expected 0.5 <= auroc < 1, 0 < half_width < 0.5 and 0 < share_sensitive < 1, found {auroc}, {half_width} and "
            f"{share_sensitive}."
        )
        raise ValueError(msg)
    z = float(norm.ppf((1 + level) / 2))

    def split(n: int) -> tuple[int, int]:
        sensitive = min(max(round(n * share_sensitive), 1), n - 1)
        return sensitive, n - sensitive

    low, high = 2, limit
    if z * np.sqrt(hanley_mcneil(auroc, *split(high))) > half_width:
        msg = f"More than {limit} samples are needed for an AUROC of {auroc} +- {half_width}."
        raise ValueError(msg)
    while low < high:
        middle = (low + high) // 2
        if z * np.sqrt(hanley_mcneil(auroc, *split(middle))) <= half_width:
            high = middle
        else:
            low = middle + 1
    return split(low)


def further_samples(
    auroc: float, half_width: float, n_sensitive: int, n_resistant: int, *, observed_half_width: float | None = None
) -> int:
    """Samples to add, in the present ratio, until the AUROC is known to +- `half_width`.

    Parameters
    ----------
    auroc
        Present AUROC; below 0.5 counts as 0.5.
    half_width
        Wanted half-width of the 95 % interval.
    n_sensitive, n_resistant
        Present samples.
    observed_half_width
        Half-width of the present interval. With it, the number follows from the observed spread (variance falls with
        the number of samples); without it, from Hanley and McNeil.
    """
    n = n_sensitive + n_resistant
    if observed_half_width is not None and np.isfinite(observed_half_width):
        return max(0, int(np.ceil(n * (observed_half_width / half_width) ** 2)) - n)
    center = float(np.clip(auroc, 0.5, 0.99))
    return max(0, sum(samples_needed(center, half_width, share_sensitive=n_sensitive / n)) - n)
