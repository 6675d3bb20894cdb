"""Templates of questions, which are text files of the package, and the messages made from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Messages = list[dict[str, str]]
LOCAL_TEMPLATE = "local-1"
"""Wording of the questions to models on this machine."""
_SECTION = re.compile(r"^\[(\w+)\]\n", flags=re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """What is asked about one record.

    Parameters
    ----------
    text
        The record, without anything that names it.
    examples
        The labeled samples that are shown with it, as text.
    """

    text: str
    examples: str = ""


def template_text(name: str) -> str:
    """A template as it is in its file."""
    return (files(__package__) / "templates" / f"{name}.txt").read_text(encoding="utf-8")


@cache
def _sections(name: str) -> dict[str, Template]:
    parts = _SECTION.split(template_text(name))[1:]
    return {title: Template(text.rstrip("\n")) for title, text in zip(parts[::2], parts[1::2])}


def example_text(name: str, text: str, label: str) -> str:
    """One labeled sample, as it is shown."""
    return _sections(name)["example"].substitute(text=text, label=label)


def local_prompt(drug: str, question: Question, first: str, second: str) -> tuple[str, str]:
    """The question to a model on this machine with the two answers in this order, and what stands before the answer."""
    parts = _sections(LOCAL_TEMPLATE)
    shown = parts["examples"].substitute(examples=question.examples) if question.examples else ""
    text = parts["request"].substitute(drug=drug, text=question.text, examples=shown, first=first, second=second)
    return "\n".join(line for line in text.splitlines() if line.strip()), parts["answer"].substitute()


def write_messages(name: str, drug: str, questions: Sequence[Question], *, again: bool) -> Messages:
    """The messages that ask about records, which are numbered from 1; their examples are the same."""
    parts = _sections(name)
    records = [parts["record"].substitute(id=i, text=question.text) for i, question in enumerate(questions, 1)]
    shown = questions[0].examples
    request = parts["request"].substitute(
        drug=drug,
        examples=parts["examples"].substitute(examples=shown) if shown else "",
        records="\n\n".join(records),
        again=parts["again"].substitute() if again else "",
    )
    plain = "\n".join(line for line in request.splitlines() if line.strip())
    return [
        {"role": "system", "content": parts["system"].substitute()},
        {"role": "user", "content": plain},
    ]
