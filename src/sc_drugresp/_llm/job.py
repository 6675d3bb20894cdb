"""One call of `tl.ask_llm`: checked as a whole before anything is sent, then asked, then laid out for every cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import CALL_CLASSES
from .._data.counts import read_counts
from .ask import Interview, ask, estimate
from .examples import read_pool
from .metadata import check_metadata, describe
from .profiles import gene_lists
from .prompts import Question, example_text
from .replies import CONFIDENCES
from .server import check_consent, find_key, read_address
from .units import read_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .ask import Found
    from .options import LLMOptions, Unit
    from .units import Units

LOCAL = "llm:"
_LONGEST_NAME = 200


@dataclass(frozen=True, eq=False)
class Job:
    """Whom to ask what.

    Parameters
    ----------
    interview
        Who is asked.
    units, questions
        What is asked about, and the question about each.
    shown
        Names of the samples that are shown as examples with each question.
    params
        What was asked for, without the key.
    """

    interview: Interview
    units: Units
    questions: list[Question]
    shown: list[list[str]]
    params: dict[str, Any]
    key: str = field(repr=False)

    @classmethod
    def prepare(
        cls,
        adata: AnnData,
        obs: pd.DataFrame,
        *,
        model: str,
        drug: str,
        base_url: str | None,
        api_key: str | None,
        allow_remote: bool,
        send: bool,
        unit: Unit,
        groupby: str | None,
        group_key: str | None,
        mask_obs: str | None,
        metadata: Sequence[str],
        examples: int,
        label_key: str,
        price: Sequence[float] | None,
        max_cost: float | None,
        options: LLMOptions,
        layer: str | None,
    ) -> Job:
        """Check everything and word the questions; nothing is sent."""
        for name, value in (("model", model), ("drug", drug)):
            _check_name(name, value)
        if base_url is None:
            hint = (
                " To ask a model in a folder, start a server for it on this machine." if model.startswith(LOCAL) else ""
            )
            msg = f"`base_url` is needed: the address of the server that holds {model!r}, for example 'http://127.0.0.1:8000/v1'.{hint}"
            raise ValueError(msg)
        server = read_address(base_url)
        if send:
            check_consent(server, allow_remote=allow_remote)
        interview = Interview(server, model, drug.strip(), options, _read_price(price, max_cost), max_cost)
        key = find_key(server, api_key)
        units = read_units(obs, unit, groupby=groupby, group_key=group_key, mask_obs=mask_obs)
        check_metadata(obs, metadata, units, label_key, groupby)
        pool = read_pool(obs, units, label_key, examples, options.seed) if examples else None
        source = read_counts(adata, layer=layer, expect="any")

        def texts(codes: np.ndarray, n: int) -> list[str]:
            listed = gene_lists(source, codes, n, n_genes=options.n_genes, genes=options.genes)
            told = describe(obs, metadata, codes, n)
            return ["\n".join(filter(None, (note, "Genes: " + " ".join(part)))) for note, part in zip(told, listed)]

        shown: list[list[int]] = [[] for _ in units.names]
        known: list[str] = []
        if pool is not None:
            parts = texts(pool.codes, len(pool.names))
            known = [example_text(options.template, text, pool.label(i)) for i, text in enumerate(parts)]
            shown = [pool.choose(examples, sample) for sample in units.samples]
        questions = [
            Question(text, "\n\n".join(known[i] for i in own))
            for text, own in zip(texts(units.codes, len(units.names)), shown)
        ]
        params = {
            "unit": unit,
            "groupby": groupby or "",
            "group_key": units.sample_key,
            "mask_obs": mask_obs or "",
            "metadata": np.array(list(metadata), dtype=str),
            "examples": examples,
            "label_key": label_key if examples else "",
            "layer": source.origin,
            "options": repr(options),
        }
        names = [] if pool is None else pool.names
        return cls(interview, units, questions, [[names[i] for i in own] for own in shown], params, key)

    def estimate(self) -> dict[str, Any]:
        """What the job would ask and cost."""
        server = self.interview.server
        found = {"n_records": len(self.questions), **estimate(self.interview, self.questions)}
        return found | {"server": server.url, "leaves_this_machine": not server.loopback}

    def ask(self) -> tuple[dict[str, pd.Categorical], dict[str, Any]]:
        """Columns of `.obs`, and what goes to `.uns`.

        Raises
        ------
        ValueError
            The estimate is above `max_cost`, or it would be exceeded on the way.
        ConnectionError
            The server refuses, or fails many times in a row.
        """
        most = self.interview.max_cost
        if most is not None:
            expected = self.estimate()["cost"]
            if expected > most:
                msg = f"`max_cost`={most} is less than the {expected:.6g} that {len(self.questions)} records are expected to cost."
                raise ValueError(msg)
        return self._lay_out(ask(self.interview, self.questions, self.key))

    def _lay_out(self, found: Found) -> tuple[dict[str, pd.Categorical], dict[str, Any]]:
        import pandas as pd

        answers = [found.answers[question] for question in self.questions]
        columns, codes = {}, self.units.codes
        for name, words in (("call", CALL_CLASSES), ("confidence", CONFIDENCES)):
            place = {word: i for i, word in enumerate(words)}
            given = np.array([*(place.get(getattr(answer, name), -1) for answer in answers), -1])
            columns[name] = pd.Categorical.from_codes(
                given[codes], categories=pd.Index(words), ordered=name == "confidence"
            )
        records = {
            "record": self.units.names,
            "sample": self.units.samples,
            "n_cells": self.units.sizes,
            **{
                name: [getattr(answer, name) for answer in answers]
                for name in ("call", "confidence", "reason", "status")
            },
            "attempts": [found.attempts[question] for question in self.questions],
            "examples": ["\t".join(names) for names in self.shown],
        }
        interview, counts = self.interview, Counter(answer.status for answer in answers)
        missing = sum(answer.missing for answer in answers)
        how = "few-shot" if self.params["examples"] else "zero-shot"
        return columns, {
            "records": pd.DataFrame(records),
            "counts": {status: int(n) for status, n in counts.items()},
            "n_records": len(answers),
            "n_missing": int(missing),
            "statement": (
                f"{how} calls of {interview.model}: {missing} of {len(answers)} records have no answer. The confidence is what the "
                "model says; no error level is known. Not for clinical use."
            ),
            "model": interview.model,
            "server": interview.server.url,
            "drug": interview.drug,
            "template": interview.options.template,
            "temperature": np.nan if interview.options.temperature is None else float(interview.options.temperature),
            "seed": int(interview.options.seed),
            "requests": found.requests,
            "replies_from_store": found.stored,
            "tokens": found.tokens,
            "cost": float(found.cost),
            "params": self.params,
        }


def _check_name(name: str, value: str) -> None:
    if not value.strip() or len(value) > _LONGEST_NAME or not value.isprintable():
        msg = f"`{name}` must be a name of at most {_LONGEST_NAME} printable characters, found {value[:60]!r}."
        raise ValueError(msg)


def _read_price(price: Sequence[float] | None, max_cost: float | None) -> tuple[float, float] | None:
    if price is None:
        if max_cost is not None:
            msg = "`max_cost` needs `price`, what a million tokens in and out cost."
            raise ValueError(msg)
        return None
    if len(price) != 2:
        msg = f"`price` must be two numbers, what a million tokens in and out cost, found {len(price)}."
        raise ValueError(msg)
    first, second = price
    return float(first), float(second)
