"""What our verbs wrote into `.uns` and `.obs`, checked and in memory: the one reader of frames, plots and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .._core.keys import SENSITIVE, STATE_CONTROL, TRAIN_RESPONSE, DrugRankingKeys, EvaluationKeys, PredictionKeys
from .._data.modalities import as_adata, in_memory, observations
from .._data.obs import read_column

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


@dataclass(frozen=True)
class Record:
    """A dictionary in `.uns`: what it is called, which verb writes it, and parts that it always has."""

    what: str
    default: str
    verb: str
    parts: tuple[str, ...]

    def find(
        self, data: AnnData | MuData, key_added: str | None = None, modality: str = "rna"
    ) -> dict[str, Any] | None:
        """The record, in memory; `None` where nothing, or something that is not ours, has its name."""
        stored = as_adata(data, modality=modality).uns.get(key_added or self.default)
        if not isinstance(stored, Mapping) or not set(self.parts) <= set(stored):
            return None
        return in_memory(dict(stored))

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
            There is none.
        """
        found = self.find(data, key_added, modality)
        if found is None:
            key = key_added or self.default
            taken = key in as_adata(data, modality=modality).uns
            other = f" (what is there was not written by {self.verb.partition('(')[0]})" if taken else ""
            named = "" if key_added is None else f" (`{argument}`)"
            msg = f"No {self.what} {key!r}{named} in `.uns`{other}. Run sc_drugresp.{self.verb} first."
            raise KeyError(msg)
        return found


EVALUATION = Record("evaluation", EvaluationKeys().uns, "tl.evaluate(adata)", ("metrics", "verdict", "params"))
PREDICTION = Record("predictions", PredictionKeys().uns, "tl.predict_response(adata)", ("models", "statement"))
RANKING = Record(
    "drug ranking", DrugRankingKeys().uns, "tl.rank_drugs(adata)", ("table", "groups", "samples", "statement")
)
TRAINING = Record("training", TRAIN_RESPONSE, "tl.train_response(adata, ...)", ("params", "metrics"))
CONTROL = Record("control", STATE_CONTROL, "tl.state_control(adata, treatment_key, untreated)", ("verdict", "table"))


def held_out(data: AnnData | MuData, key_added: str | None, modality: str) -> pd.DataFrame:
    """Held-out cells of an evaluation: `y` (1 sensitive), `prob`, `score`, `dataset` and `group`, the sample."""
    params = EVALUATION.read(data, key_added, modality)["params"]
    obs = observations(data, modality=modality)
    keys = EvaluationKeys.of(key_added)
    prob, score = (read_column(obs, key, "key_added").astype(float) for key in (keys.prob, keys.score))
    label = read_column(obs, params["label_key"], "label_key")
    dataset = obs[params["dataset_key"]].astype(str) if params["dataset_key"] in obs else "all"
    sample = obs[params["group_key"]].astype(str) if params["group_key"] in obs else obs.index.astype(str)
    frame = pd.DataFrame({"y": (label == SENSITIVE).astype(int), "prob": prob, "score": score}, index=obs.index)
    frame["dataset"] = dataset
    frame["group"] = frame["dataset"] + "\t" + sample  # two data sets may both have a "P1"
    return frame[np.isfinite(prob) & label.notna()]
