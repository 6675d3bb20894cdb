"""Response labels in any wording to `sensitive` / `resistant`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import RESISTANT, RESPONSE, RESPONSE_CLASSES, SENSITIVE
from .._core.log import logger
from .._data.label_words import HINTS, normal, translate
from .._data.modalities import Target, observations
from .._data.obs import read_column

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName

Unknown = Literal["error", "missing"]


@doc_params()
@checked
def harmonize_labels(
    data: AnnData | MuData,
    key: str,
    *,
    sensitive: Any = None,
    resistant: Any = None,
    missing: Any = None,
    unknown: Unknown = "error",
    key_added: SlotName = RESPONSE,
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Translate a free-text column to `sensitive` / `resistant` / missing.

    The usual terms are recognized in any spelling (`Resistant`, `non-responder`, `NR`, `PD`, `CR`, `PR`, ...), also with
    words such as *cells* or *acquired* beside them. What depends on the study is never guessed: numbers and booleans,
    stable disease, persisters, a single `R` or `S`.

    Parameters
    ----------
    {data}
    key
        Column of `.obs` to translate.
    sensitive, resistant, missing
        A value or several values of the column that mean this. They take precedence over the recognized terms.
        Text is compared without regard to case and punctuation.
    unknown
        What to do with values that are neither given nor recognized: list them in an error, or set them to missing.
    key_added
        Column of `.obs` to write; may be `key` itself.
    {modality}
    {copy}

    Returns
    -------
    `None`, or the changed copy. Writes:

    `.obs['response']` : :class:`~pandas.Categorical`
        `sensitive`, `resistant`, or missing.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Values are not recognized, a value is given two meanings, or no cell is left with a label.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=2, cells_per_sample=2, n_genes=50)
    >>> adata.obs["best response"] = ["PR", "SD", "progressive disease", "NE"]
    >>> sdr.pp.harmonize_labels(adata, "best response", resistant="SD")
    >>> adata.obs["response"].astype(object).fillna("missing").tolist()
    ['sensitive', 'resistant', 'resistant', 'missing']
    """
    import pandas as pd

    target = Target(data, modality, copy, key_added)
    column = read_column(observations(data, modality=modality), key, "key").astype(object)
    values = [value for value in column.unique() if not pd.isna(value)]
    given = _given({SENSITIVE: sensitive, RESISTANT: resistant, "": missing})
    meaning, open_values = translate(values, given)
    if open_values and unknown == "error":
        raise ValueError(_question(key, open_values))
    response = column.map(lambda value: meaning.get(value) or None)
    categories = pd.Categorical(response, categories=list(RESPONSE_CLASSES))
    numbers = {name: int((categories == name).sum()) for name in RESPONSE_CLASSES}
    if not any(numbers.values()):
        listed = ", ".join(map(repr, values[:10])) or "missing values only"
        msg = f"No cell of column {key!r} is sensitive or resistant; it holds {listed}. Pass `sensitive=` and `resistant=`."
        raise ValueError(msg)

    absent = len(column) - sum(numbers.values())
    table = {str(value): meaning.get(value) or "missing" for value in values}
    logger.info("writing .obs[%r]: %s, %d missing (from %s)", key_added, numbers, absent, table)
    return target.write(obs={key_added: categories})


def _given(choices: dict[str, Any]) -> dict[str, str]:
    out: dict[str, str] = {}
    for meaning, values in choices.items():
        several = isinstance(values, Collection) and not isinstance(values, (str, bytes))
        for value in () if values is None else values if several else (values,):
            if out.setdefault(normal(value), meaning) != meaning:
                msg = f"The value {value!r} is given as {out[normal(value)] or 'missing'!r} and as {meaning or 'missing'!r}."
                raise ValueError(msg)
    return out


def _question(key: str, values: list[Any]) -> str:
    listed = ", ".join(map(repr, values[:20])) + (", ..." if len(values) > 20 else "")
    hints = dict.fromkeys(HINTS[normal(value)] for value in values if normal(value) in HINTS)
    why = f" ({'; '.join(hints)})" if hints else ""
    return (
        f"Column {key!r} holds {len(values)} value(s) whose meaning is unclear: {listed}{why}. Say what they mean with "
        "`sensitive=`, `resistant=` or `missing=`, or set them all to missing with unknown='missing'."
    )
