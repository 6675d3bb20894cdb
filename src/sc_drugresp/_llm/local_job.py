"""One call of `tl.ask_llm` to a model on this machine: probabilities by likelihood, laid out for every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import CALL_CLASSES, RESISTANT, SENSITIVE
from .local import LocalScorer
from .prompts import LOCAL_TEMPLATE
from .records import check_name
from .replies import ANSWERED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from .records import Records


def check_local(drug: str, given: Mapping[str, Any]) -> None:
    """Refuse arguments that are about a server.

    Raises
    ------
    ValueError
        The drug has no name, or an argument is given that a model on this machine does not read.
    """
    check_name("drug", drug)
    if unused := sorted(name for name, value in given.items() if value):
        msg = f"`{unused[0]}` is about a server, but a model in a folder is read on this machine: leave it out, or give `base_url`."
        raise ValueError(msg)


def score_records(records: Records, model: str, drug: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score every record; columns of `.obs` (`call`, `prob`) and what goes to `.uns`.

    Parameters
    ----------
    records
        What is asked about.
    model
        `llm:<folder or repository>`.
    drug
        Name of the drug.
    """
    scorer = LocalScorer.open(model)
    found = scorer.score(drug, records.questions)
    calls = np.where(found.prob > 0.5, SENSITIVE, RESISTANT)
    n = len(records.questions)
    return _columns(records.units.codes, calls, found.prob), {
        "records": _table(records, calls, found),
        "counts": {ANSWERED: n},
        "n_records": n,
        "n_missing": 0,
        "statement": (
            f"zero-shot calls of {model} for {n} records by the likelihood of the two answers, corrected for what the model "
            "answers without a record. The probability is not calibrated on any patient; no error level is known. Not for "
            "clinical use."
        ),
        "model": model,
        "checkpoint": scorer.checkpoint,
        "server": "",
        "drug": drug,
        "template": LOCAL_TEMPLATE,
        "params": records.params,
    }


def _columns(codes: np.ndarray, calls: np.ndarray, prob: np.ndarray) -> dict[str, Any]:
    import pandas as pd

    place = {word: i for i, word in enumerate(CALL_CLASSES)}
    given = np.array([*(place[call] for call in calls.tolist()), -1])
    return {
        "call": pd.Categorical.from_codes(given[codes], categories=pd.Index(CALL_CLASSES)),
        "prob": np.append(prob, np.nan)[codes],
    }


def _table(records: Records, calls: np.ndarray, found: Any) -> pd.DataFrame:
    import pandas as pd

    about = records.table()
    scores = {"call": calls, "prob": found.prob, "order_spread": found.spread, "bias": found.bias}
    return pd.DataFrame({**about, **scores, "status": ANSWERED})
