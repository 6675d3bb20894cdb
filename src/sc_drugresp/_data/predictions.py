"""Columns of `.obs` that `tl.predict_response` wrote, checked; read by verbs, frames and plots alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.keys import CALL_CLASSES, PredictionKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


def read_predictions(obs: pd.DataFrame, key_added: str | None, *, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    """The columns of predictions, by their short names.

    Parameters
    ----------
    obs
        `.obs` in memory.
    key_added
        Base name of the columns; `None` for the usual one.
    needed
        Columns that must be there beside the call and the probability.

    Raises
    ------
    KeyError
        There are none, or a column is not what the verb writes.
    """
    keys = PredictionKeys.of(key_added)
    if not {keys.call, keys.prob} <= set(obs):
        msg = f"No predictions {keys.call!r} (`key_added`) in `.obs`. Run sc_drugresp.tl.predict_response(adata) first."
        raise KeyError(msg)
    columns = {getattr(keys, name): name for name in _COLUMNS if getattr(keys, name) in obs or name in needed}
    for key, name in columns.items():
        wrong = _COLUMNS[name](obs[key]) if key in obs else "the predictions of every cell"
        if wrong:
            found = obs[key].dtype if key in obs else "no such column"
            msg = (
                f"`.obs[{key!r}]` was not written by tl.predict_response, or was changed: it should hold {wrong}, found "
                f"{found}. Run sc_drugresp.tl.predict_response(adata) again."
            )
            raise KeyError(msg)
    return obs[list(columns)].rename(columns=columns)


def not_numbers(column: pd.Series) -> str | None:
    """What a column of scores should hold, if it holds anything else."""
    return None if column.dtype.kind == "f" else "numbers"


def _not_calls(column: pd.Series) -> str | None:
    return None if set(column.dropna().astype(str)) <= set(CALL_CLASSES) else " / ".join(CALL_CLASSES)


def _not_flags(column: pd.Series) -> str | None:
    return None if column.dtype.kind == "b" else "true or false"


_COLUMNS: dict[str, Callable[[pd.Series], str | None]] = {
    "call": _not_calls,
    "prob": not_numbers,
    "low": not_numbers,
    "high": not_numbers,
    "ood": _not_flags,
    "ood_score": not_numbers,
    "disagreement": not_numbers,
}
