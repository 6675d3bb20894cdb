"""One call of `tl.ask_llm`: checked as a whole before anything is sent, then asked, then laid out for every cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import CALL_CLASSES
from .ask import Interview, ask, estimate
from .budget import Budget
from .records import Records, check_name
from .replies import CONFIDENCES
from .server import check_consent, find_key, read_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from .ask import Found
    from .options import LLMOptions, Unit


@dataclass(frozen=True, eq=False)
class Job:
    """Whom to ask what.

    Parameters
    ----------
    interview
        Who is asked.
    records
        What is asked about, and the question about each.
    """

    interview: Interview
    records: Records
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
            check_name(name, value)
        if base_url is None:
            msg = (
                f"`base_url` is needed: the address of the server that holds {model!r}, for example 'http://127.0.0.1:8000/v1'; or "
                "a model on this machine: model='llm:<folder>'."
            )
            raise ValueError(msg)
        server = read_address(base_url)
        if send:
            check_consent(server, allow_remote=allow_remote)
        interview = Interview(server, model, drug.strip(), options, _read_price(price, max_cost), max_cost)
        key = find_key(server, api_key)
        records = Records.read(
            adata,
            obs,
            unit=unit,
            groupby=groupby,
            group_key=group_key,
            mask_obs=mask_obs,
            metadata=metadata,
            examples=examples,
            label_key=label_key,
            options=options,
            layer=layer,
        )
        return cls(interview, records, key)

    def estimate(self) -> dict[str, Any]:
        """What the job would ask and cost."""
        server = self.interview.server
        found = {"n_records": len(self.records.questions), **estimate(self.interview, self.records.questions)}
        return found | {"server": server.url, "leaves_this_machine": not server.loopback}

    def ask(self) -> tuple[dict[str, Any], dict[str, Any]]:
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
                msg = f"`max_cost`={most} is less than the {expected:.6g} that {len(self.records.questions)} records are expected to cost."
                raise ValueError(msg)
        return self._lay_out(ask(self.interview, self.records.questions, self.key))

    def _lay_out(self, found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
        import pandas as pd

        answers = [found.answers[question] for question in self.records.questions]
        columns, codes = {}, self.records.units.codes
        for name, words in (("call", CALL_CLASSES), ("confidence", CONFIDENCES)):
            place = {word: i for i, word in enumerate(words)}
            given = np.array([*(place.get(getattr(answer, name), -1) for answer in answers), -1])
            columns[name] = pd.Categorical.from_codes(
                given[codes], categories=pd.Index(words), ordered=name == "confidence"
            )
        records = {
            **self.records.table(),
            **{
                name: [getattr(answer, name) for answer in answers]
                for name in ("call", "confidence", "reason", "status")
            },
            "attempts": [found.attempts[question] for question in self.records.questions],
        }
        interview, counts = self.interview, Counter(answer.status for answer in answers)
        missing = sum(answer.missing for answer in answers)
        how = "few-shot" if self.records.params["examples"] else "zero-shot"
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
            "cost_of_all_replies": float(Budget(interview.price, None).cost(found.tokens["in"], found.tokens["out"])),
            "params": self.records.params,
        }


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
