"""Replies of a language model, checked as if no schema had been sent: what does not fit is missing, never guessed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from .._core.imports import require
from .._core.keys import CALL_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIDENCES = ("very low", "low", "medium", "high", "very high")
ANSWERED, UNPARSABLE, TRUNCATED, FILTERED, ABSENT, NO_REPLY = (
    "answered", "not readable", "cut off", "refused", "not in the reply", "no reply",
)  # fmt: skip
"""What became of a record."""
LONGEST_REASON = 200
_LONGEST_REPLY = 1_000_000
_ECHO = 60
"""A reason that repeats so many characters of the question is left out: questions are not stored."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "records": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "call": {"type": "string", "enum": list(CALL_CLASSES)},
                    "confidence": {"type": "string", "enum": list(CONFIDENCES)},
                    "reason": {"type": "string"},
                },
                "required": ["id", "call", "confidence", "reason"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["records"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Answer:
    """What is known of one record: its call, how sure, why in a few words, and what became of the question."""

    call: str = ""
    confidence: str = ""
    reason: str = ""
    status: str = NO_REPLY

    @property
    def missing(self) -> bool:
        """Whether there is no call."""
        return not self.call


@dataclass(frozen=True)
class Reply:
    """The part of a reply that fits: answers by the number of the record, and why others are missing."""

    answers: Mapping[int, Answer]
    status: str

    def of(self, number: int) -> Answer:
        """The answer to a record."""
        return self.answers.get(number, Answer(status=self.status))


def read_reply(content: str | None, finish: str | None, *, n: int, prompt: str = "") -> Reply:
    """Check a reply to `n` records.

    Parameters
    ----------
    content
        Text of the reply.
    finish
        `finish_reason`. Anything but the usual end of a text makes all records missing.
    n
        Records that were asked about, numbered from 1.
    prompt
        The question, which a reason must not repeat.
    """
    if finish in {"length", "max_tokens"}:
        return Reply({}, TRUNCATED)
    if finish not in {"stop", None, "eos", "eos_token", "end_turn"} or content is None:
        return Reply({}, FILTERED)
    items = _items(content)
    if items is None:
        return Reply({}, UNPARSABLE)
    numbers = [item.get("id") if isinstance(item, dict) else None for item in items]
    answers = {}
    for number, item in zip(numbers, items):
        if type(number) is int and 1 <= number <= n and numbers.count(number) == 1:
            answer = _answer(item, prompt)
            if answer is not None:
                answers[number] = answer
    return Reply(answers, ABSENT if answers or len(items) != n else UNPARSABLE)


def _items(content: str) -> list[Any] | None:
    """The records in a text: JSON, also between fences or words; `None` if there is none."""
    begin, end = content.find("{"), content.rfind("}")
    if begin < 0 or end < begin or len(content) > _LONGEST_REPLY:
        return None
    try:
        found = json.loads(content[begin : end + 1])
    except (ValueError, RecursionError):
        return None
    items = found.get("records")
    return items if isinstance(items, list) else None


def _answer(item: Any, prompt: str) -> Answer | None:
    """One record; `None` if a part does not fit."""
    from pydantic import ValidationError

    try:
        found = record_model().model_validate(item)
    except ValidationError:
        return None
    reason = " ".join(str(found.reason).split())[:LONGEST_REASON]
    if any(reason[i : i + _ECHO] in prompt for i in range(len(reason) - _ECHO + 1)):
        reason = ""
    return Answer(str(found.call), str(found.confidence), reason, ANSWERED)


@cache
def record_model() -> Any:
    """The pydantic model of one record; made once, since that takes a moment."""
    pydantic = require("pydantic", extra="llm")
    return pydantic.create_model(
        "Record",
        __config__=pydantic.ConfigDict(strict=True, extra="ignore"),
        id=(int, ...),
        call=(Literal[CALL_CLASSES], ...),
        confidence=(Literal[CONFIDENCES], ...),
        reason=(str, ...),
    )
