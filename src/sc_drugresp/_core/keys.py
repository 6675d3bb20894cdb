"""Every name that we read or write in a user's object. No other module holds such a literal."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SENSITIVE, RESISTANT, UNCERTAIN = "sensitive", "resistant", "uncertain"
RESPONSE_CLASSES = (SENSITIVE, RESISTANT)
CALL_CLASSES = (SENSITIVE, RESISTANT, UNCERTAIN)
"""Order of the categories, the colors and the legend."""
MISSING = "missing"
COLORS = {SENSITIVE: "#0072B2", RESISTANT: "#D55E00", UNCERTAIN: "#BBBBBB", MISSING: "#E5E5E5"}
"""One color for each call or label, wherever it is drawn; Okabe & Ito (2008), "Color universal design"."""

RESPONSE = "response"
"""Default label column, written by `pp.harmonize_labels`."""
SYMBOL, ENSEMBL_ID = "symbol", "ensembl_id"
SPLIT = "split"
COUNTS_LAYER = "counts"
REFERENCE = "reference"
"""`kind` of predictions that a reference made, in `.uns`."""
LLM = "llm:"
"""What the name of a language model begins with that is taken from a folder or a repository."""
TRAIN_RESPONSE = "train_response"
"""`.uns` key of the training history."""
GROUP_CANDIDATES = (
    "patient", "patient_id", "donor", "donor_id", "cell_line", "sample", "sample_id", "orig.ident", "batch", "library",
    "plate",
)  # fmt: skip
"""Columns that `group_key=None` looks for, strictest first."""
ROLE_CANDIDATES = {
    "dataset": ("dataset", "study"),
    "patient": ("patient", "patient_id", "donor", "donor_id", "cell_line"),
    "sample": ("sample", "sample_id", "orig.ident"),
    "batch": ("batch", "library", "plate"),
    "timepoint": ("timepoint", "time_point", "time"),
    "drug": ("drug", "treatment"),
}
"""Columns that the design table of an evaluation looks for, by role."""


@dataclass(frozen=True)
class GeneKeys:
    """Written by `pp.harmonize_genes`."""

    symbol: str = SYMBOL
    ensembl_id: str = ENSEMBL_ID
    uns: str = "harmonize_genes"


@dataclass(frozen=True)
class MalignantKeys:
    """Written by `pp.suggest_malignant`; `key_added` replaces `suggested_malignant`."""

    malignant: str = "suggested_malignant"
    compartment: str = "suggested_malignant_compartment"
    uns: str = "suggested_malignant"

    @classmethod
    def of(cls, key_added: str | None = None) -> MalignantKeys:
        base = key_added or cls.uns
        return cls(base, f"{base}_compartment", base)


@dataclass(frozen=True)
class EmbeddingKeys:
    """Written by `tl.embed`."""

    obsm: str
    uns: str

    @classmethod
    def of(cls, model: str, key_added: str | None = None) -> EmbeddingKeys:
        """`name.tag` is written as `X_name_tag`, `llm:folder/name` as `X_llm_name`; `key_added` replaces the whole name."""
        if key_added is not None:
            return cls(key_added, key_added)
        if model.startswith(LLM):
            place = re.split(r"[/\\]", model.removeprefix(LLM).rstrip("/\\"))[-1]
            model = f"llm_{re.sub(r'[^0-9A-Za-z]+', '_', place).strip('_')}"
        base = model.replace(".", "_").replace("-", "_")
        return cls(f"X_{base}", base)


@dataclass(frozen=True)
class PredictionKeys:
    """Written by `tl.predict_response` and `tl.aggregate`; `key_added` replaces `predicted_response`."""

    call: str = "predicted_response"
    prob: str = "predicted_response_prob"
    low: str = "predicted_response_low"
    high: str = "predicted_response_high"
    ood: str = "predicted_response_ood"
    ood_score: str = "predicted_response_ood_score"
    disagreement: str = "predicted_response_disagreement"
    cell_score: str = "predicted_response_cell_score"
    uns: str = "predicted_response"
    samples: str = "samples"

    @classmethod
    def of(cls, key_added: str | None = None) -> PredictionKeys:
        base = key_added or cls.uns
        return cls(**{field.name: str(field.default).replace(cls.uns, base) for field in fields(cls)})


@dataclass(frozen=True)
class DrugRankingKeys:
    """Written by `tl.rank_drugs`; `key_added` replaces `drug_ranking`."""

    uns: str = "drug_ranking"
    scores: str = "drug_scores"

    @classmethod
    def of(cls, key_added: str | None = None) -> DrugRankingKeys:
        return cls() if key_added is None else cls(key_added, f"{key_added}_scores")


@dataclass(frozen=True)
class LLMKeys:
    """Written by `tl.ask_llm`; `key_added` replaces `llm_response`."""

    call: str = "llm_response"
    confidence: str = "llm_response_confidence"
    prob: str = "llm_response_prob"
    uns: str = "llm_response"
    records: str = "records"

    @classmethod
    def of(cls, key_added: str | None = None) -> LLMKeys:
        base = key_added or cls.uns
        return cls(base, f"{base}_confidence", f"{base}_prob", base)


@dataclass(frozen=True)
class EvaluationKeys:
    """Written by `tl.evaluate`; `key_added` replaces `evaluation`."""

    uns: str = "evaluation"
    prob: str = "evaluation_prob"
    score: str = "evaluation_score"
    call: str = "evaluation_call"
    fold: str = "evaluation_fold"

    @classmethod
    def of(cls, key_added: str | None = None) -> EvaluationKeys:
        base = key_added or cls.uns
        return cls(base, f"{base}_prob", f"{base}_score", f"{base}_call", f"{base}_fold")


STATE_CONTROL = "state_control"
"""`.uns` key of `tl.state_control`."""


def color_key(column: str) -> str:
    """`.uns` key under which scanpy looks for the colors of a column of `.obs`."""
    return f"{column}_colors"


def colors_of(column: pd.Series | pd.Categorical) -> np.ndarray | None:
    """Our colors for the categories of a column, in their order; `None` unless all of them are classes of ours."""
    categories = getattr(getattr(column, "cat", column), "categories", None)
    if categories is None or not set(categories) <= COLORS.keys():
        return None
    return np.array([COLORS[name] for name in categories], dtype=object)


_RESERVED = frozenset({"", ".", "..", "_index", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json"})
_LONGEST = 200
"""Bytes of a name, so that it can be that of a file with what we append to it."""


def is_slot_name(name: object) -> bool:
    """Whether h5ad files and zarr stores can hold something of this name, and give it back."""
    if not isinstance(name, str) or name in _RESERVED or set(name) & {"/", "\\"} or min(name) < " ":
        return False
    try:
        return len(name.encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def slot_name(name: str, argument: str = "key_added") -> str:
    """A name that the user chose for a slot, if files can hold it.

    Raises
    ------
    ValueError
        It is empty, reserved, or divides a path.
    """
    if not is_slot_name(name):
        msg = f"`{argument}` must be a name without '/' that files can hold, found {name!r}."
        raise ValueError(msg)
    return name
