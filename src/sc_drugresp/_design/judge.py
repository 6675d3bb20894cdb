"""The verdict of a cohort from its table of cells, before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .confounding import examine
from .roles import role_columns
from .split import choose_split

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd

    from .confounding import Confounding
    from .split import Plan
    from .verdict import Verdict


@dataclass(frozen=True)
class Assessment:
    """What is known of a cohort before anything is fitted: its split, what goes with the label, the verdict."""

    plan: Plan
    keys: dict[str, str]
    confounding: Confounding
    verdict: Verdict


def assess(
    obs: pd.DataFrame,
    y: np.ndarray,
    *,
    group_key: str | None,
    dataset_key: str | None = None,
    label_key: str | None = None,
    ignore: Iterable[str] = (),
) -> Assessment:
    """Judge what can be learned about response from these cells, and say what the verdict rests on.

    Parameters
    ----------
    obs
        `.obs` of the labeled cells, also with measurements of them that `.obs` does not hold.
    y
        Their labels, 1 sensitive and 0 resistant, shape `(n_labeled,)`.
    group_key
        Column that names the sample or patient; `None` looks for the usual names.
    dataset_key
        Column that names the data set; `None` looks for the usual names.
    label_key
        Column that holds the labels; columns with words of response are recognized without it.
    ignore
        Further columns not to look at.

    Returns
    -------
    :class:`Assessment`.

    Raises
    ------
    KeyError
        `group_key` or `dataset_key` does not exist.
    ValueError
        `dataset_key` is missing for some cells.
    """
    columns, keys = role_columns(obs, group_key, dataset_key)
    plan = choose_split(y, columns, names=keys)
    skip = {*ignore, *(() if label_key is None else (label_key,))}
    confounding = examine(obs, y, plan, columns.get("dataset"), skip=skip)
    return Assessment(plan, keys, confounding, confounding.weigh(plan.verdict, plan.thing))
