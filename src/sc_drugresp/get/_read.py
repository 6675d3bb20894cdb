"""What our verbs wrote into `.uns` and `.obs`, checked and in memory: the one reader of frames, plots and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._core.contents import mismatch, shown
from .._core.keys import (
    REFERENCE,
    SENSITIVE,
    STATE_CONTROL,
    TRAIN_RESPONSE,
    DrugRankingKeys,
    EvaluationKeys,
    PredictionKeys,
)
from .._data.modalities import as_adata, in_memory, observations
from .._data.obs import read_column
from .._data.predictions import not_numbers
from . import _contents as contents

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@dataclass(frozen=True, eq=False)
class Record:
    """A dictionary in `.uns`: what it is called, which verb writes it, and what it holds.

    Parameters
    ----------
    what, default, verb
        Name in messages, default key, and the call that writes it.
    parts
        What it holds, see :func:`~sc_drugresp._core.contents.mismatch`.
    kinds
        What it holds instead where its `kind` is one of these.
    check
        Finds what does not fit together.
    """

    what: str
    default: str
    verb: str
    parts: Mapping[str, Any]
    kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    check: Callable[[dict[str, Any]], str | None] = lambda _: None

    def find(
        self, data: AnnData | MuData, key_added: str | None = None, modality: str = "rna"
    ) -> dict[str, Any] | None:
        """The record, in memory; `None` where nothing, or something that is not ours, has its name.

        Raises
        ------
        KeyError
            It has lost a part, or a part is something else than our verb writes.
        """
        key = key_added or self.default
        stored = as_adata(data, modality=modality).uns.get(key)
        if not self.wrote(stored):
            return None
        found: dict[str, Any] = in_memory(dict(stored))
        kind = found.get("kind")
        parts = self.kinds.get(kind, self.parts) if isinstance(kind, str) else self.parts
        wrong = mismatch(found, parts, key) or self.check(found)
        if wrong:
            msg = (
                f"The {self.what} in `.uns[{key!r}]` is damaged or was not written by {self._name}: {wrong}. "
                f"Run sc_drugresp.{self.verb} again."
            )
            raise KeyError(msg)
        return found

    def read(
        self,
        data: AnnData | MuData,
        key_added: str | None = None,
        modality: str = "rna",
        *,
        argument: str = "key_added",
    ) -> dict[str, Any]:
        """The record, in memory; `argument` gave the key.

        Raises
        ------
        KeyError
            There is none, or what is there is damaged or was not written by our verb.
        """
        found = self.find(data, key_added, modality)
        if found is None:
            key = key_added or self.default
            named = "" if key_added is None else f" (`{argument}`)"
            instead = self.instead(data, key, modality)
            msg = f"No {self.what} {key!r}{named} in `.uns`{instead}. Run sc_drugresp.{self.verb} first."
            raise KeyError(msg)
        return found

    def instead(self, data: AnnData | MuData, key: str, modality: str) -> str:
        """What stands in the place of a record and is not ours, in parentheses; nothing if the place is free."""
        uns = as_adata(data, modality=modality).uns
        return f" (what is there, {shown(uns[key])}, was not written by {self._name})" if key in uns else ""

    def wrote(self, stored: Any) -> bool:
        """Whether a value looks like what our verb writes: half of its parts are there."""
        if not isinstance(stored, Mapping):
            return False
        always = [name for name in self.parts if not name.endswith("?")]
        return 2 * sum(name in stored for name in always) >= len(always)

    @property
    def _name(self) -> str:
        return self.verb.partition("(")[0]


EVALUATION = Record(
    "evaluation",
    EvaluationKeys().uns,
    "tl.evaluate(adata)",
    contents.EVALUATION,
    check=contents.evaluation_problem,
)
PREDICTION = Record(
    "predictions",
    PredictionKeys().uns,
    "tl.predict_response(adata)",
    contents.PREDICTION,
    kinds={REFERENCE: contents.BY_REFERENCE},
)
RANKING = Record(
    "drug ranking",
    DrugRankingKeys().uns,
    "tl.rank_drugs(adata)",
    contents.RANKING,
    check=contents.ranking_problem,
)
TRAINING = Record("training", TRAIN_RESPONSE, "tl.train_response(adata, ...)", contents.TRAINING)
CONTROL = Record(
    "control",
    STATE_CONTROL,
    "tl.state_control(adata, treatment_key, untreated)",
    contents.CONTROL,
    check=contents.control_problem,
)


def held_out(data: AnnData | MuData, key_added: str | None, modality: str) -> pd.DataFrame:
    """Held-out cells of an evaluation: `y` (1 sensitive), `prob`, `score`, `dataset` and `group`, the sample."""
    params = EVALUATION.read(data, key_added, modality)["params"]
    obs = observations(data, modality=modality)
    keys = EvaluationKeys.of(key_added)
    prob, score = (_held_out_column(obs, key) for key in (keys.prob, keys.score))
    label = read_column(obs, params["label_key"], "label_key")
    dataset = obs[params["dataset_key"]].astype(str) if params["dataset_key"] in obs else "all"
    sample = obs[params["group_key"]].astype(str) if params["group_key"] in obs else obs.index.astype(str)
    frame = pd.DataFrame({"y": (label == SENSITIVE).astype(int), "prob": prob, "score": score}, index=obs.index)
    frame["dataset"] = dataset
    frame["group"] = frame["dataset"] + "\t" + sample  # two data sets may both have a "P1"
    return frame[np.isfinite(prob) & label.notna()]


def _held_out_column(obs: pd.DataFrame, key: str) -> pd.Series:
    if key not in obs or not_numbers(obs[key]):
        found = f"found {obs[key].dtype}" if key in obs else "it is not there"
        msg = f"`.obs[{key!r}]`, held-out scores that tl.evaluate writes, should hold numbers, {found}. Evaluate again."
        raise KeyError(msg)
    return obs[key]
