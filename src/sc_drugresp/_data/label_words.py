"""Words for a response to treatment, and what they mean."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .._core.keys import RESISTANT, SENSITIVE

_WORDS = {
    SENSITIVE: (
        "sensitive responder responders responsive response responding cr pr complete_response partial_response "
        "complete_responder partial_responder pcr pathological_complete_response mpr major_pathologic_response "
        "durable_clinical_benefit dcb susceptible"
    ),
    RESISTANT: (
        "resistant resistance non_responder non_responders nonresponder nonresponders non_responsive nonresponsive "
        "non_response no_response not_responding unresponsive insensitive refractory nr pd progressive_disease "
        "progression progressor no_durable_benefit ndb no_clinical_benefit ncb"
    ),
    "": "na n_a nan null missing unknown unk unclear not_available not_applicable not_evaluable ne nos",
}
_FILLERS = {
    "drug", "treatment", "therapy", "chemo", "acquired", "intrinsic", "primary", "cell", "cells", "line", "lines",
    "clone", "clones", "patient", "patients", "tumor", "tumour", "tumors", "tumours", "sample", "samples",
    "population", "subline",
}  # fmt: skip
_LETTERS = {
    frozenset({"s", "r"}): {"s": SENSITIVE, "r": RESISTANT},
    frozenset({"r", "nr"}): {"r": SENSITIVE, "nr": RESISTANT},
    frozenset({"r", "n"}): {"r": SENSITIVE, "n": RESISTANT},
}
"""`R` is *resistant* beside `S`, and *responder* beside `NR`: a single letter is read together with the others."""
_KNOWN = {word: meaning for meaning, words in _WORDS.items() for word in words.split()} | {"": ""}
HINTS = {
    "sd": "stable disease counts as benefit in some studies and as failure in others",
    "stable_disease": "stable disease counts as benefit in some studies and as failure in others",
    "mr": "a mixed response is neither sensitive nor resistant",
    "persister": "persisters survived but may be sensitive again",
    "r": "'R' is resistant in some studies and responder in others",
    "s": "'S' alone is ambiguous",
}
"""Why a word is not translated by itself."""


def word_of(value: Any) -> str | None:
    """Meaning of one value by itself: a class, `""` for missing, `None` if it is unclear."""
    text = normal(value)
    return _KNOWN.get(text, _KNOWN.get("_".join(part for part in text.split("_") if part not in _FILLERS)))


def normal(value: Any) -> str:
    """A value as text without case and punctuation; numbers and booleans keep what they are."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)) or (isinstance(value, (float, np.floating)) and float(value).is_integer()):
        return str(int(value))
    return re.sub(r"[^0-9a-z.]+", "_", str(value).strip().lower()).strip("_")


def translate(values: list[Any], given: dict[str, str]) -> tuple[dict[Any, str], list[Any]]:
    """Meaning of each value, the user's word first, and the values that remain open."""
    letters = {normal(value) for value in values if normal(value) not in given}
    context = next((table for keys, table in _LETTERS.items() if keys <= letters), {})
    meaning: dict[Any, str] = {}
    left: list[Any] = []
    for value in values:
        text = normal(value)
        # Numbers and booleans are coded differently in every study.
        number = isinstance(value, (int, float, bool, np.number, np.bool_))
        found = given.get(text, None if number else context.get(text, word_of(value)))
        if found is None:
            left.append(value)
        else:
            meaning[value] = found
    return meaning, left
