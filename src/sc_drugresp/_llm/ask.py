"""Questions about records, from the store or from the server: each is paid for once, and a run that ends early goes on."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.progress import progress_bar
from .budget import Budget, BudgetError, tokens_expected, tokens_most
from .chat import Chat
from .prompts import write_messages
from .replies import NO_REPLY, SCHEMA, Answer, Reply, read_reply
from .retry import Line, ServerError, TransientError, with_patience
from .store import Store, key_of, store_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .options import LLMOptions
    from .prompts import Messages, Question
    from .server import Server

ATTEMPTS = 2
"""How often a record is asked about: once more if the first reply cannot be read."""


@dataclass(frozen=True)
class Interview:
    """Who is asked, about which drug, and how.

    Parameters
    ----------
    server, model
        Address and name of the model.
    drug
        What the records may respond to.
    options
        Numbers and switches.
    price, max_cost
        Of a million tokens in and out, and what must not be exceeded.
    """

    server: Server
    model: str
    drug: str
    options: LLMOptions
    price: tuple[float, float] | None = None
    max_cost: float | None = None

    def request(self, questions: Sequence[Question], *, again: bool) -> tuple[str, Messages]:
        """Key in the store, and messages."""
        options = self.options
        messages = write_messages(options.template, self.drug, questions, again=again)
        parts = {
            "server": self.server.url,
            "model": self.model,
            "messages": messages,
            "schema": SCHEMA if options.response_format == "json_schema" else "",
            "temperature": options.temperature,
            "seed": options.seed,
            "template": options.template,
            "max_tokens": options.max_tokens * len(questions),
        }
        return key_of(parts), messages

    def batches(self, questions: Sequence[Question]) -> list[list[Question]]:
        """Different questions in a random order, those of one request together."""
        order = np.random.default_rng(self.options.seed).permutation(len(questions))
        groups: dict[str, list[Question]] = {}
        for question in dict.fromkeys(questions[i] for i in order):
            groups.setdefault(question.examples, []).append(question)
        size = self.options.per_request
        return [part[i : i + size] for part in groups.values() for i in range(0, len(part), size)]

    @property
    def extra(self) -> int:
        """Bytes of the schema, which a server may count."""
        return len(json.dumps(SCHEMA)) if self.options.response_format == "json_schema" else 0


@dataclass
class Found:
    """Answers by question, how often each question was asked, and what it did cost."""

    answers: dict[Question, Answer] = field(default_factory=dict)
    attempts: Counter[Question] = field(default_factory=Counter)
    requests: int = 0
    stored: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    """Of all replies, today's and stored ones."""
    cost: float = float("nan")
    """Of today's replies; of lost ones what they can cost at most."""


def estimate(interview: Interview, questions: Sequence[Question]) -> dict[str, Any]:
    """What is still to be asked and what that costs; nothing is sent or written."""
    store, money = Store(store_path(), write=False), Budget(interview.price, None)
    open_ = [part for batch in interview.batches(questions) for part in _unasked(interview, store, batch)]
    store.close()
    texts = [interview.request(part, again=again)[1] for part, again in open_]
    n_open = sum(len(part) for part, _ in open_)
    expected = sum(tokens_expected(messages, interview.extra) for messages in texts)
    most = sum(tokens_most(messages, interview.extra) for messages in texts)
    out = interview.options.max_tokens * n_open
    return {
        "n_requests": len(texts),
        "n_records_to_ask": n_open,
        "tokens_in": expected,
        "tokens_out": out // 2,
        "cost": money.cost(expected, out // 2),
        "cost_most": ATTEMPTS * money.cost(most, out),
        "first_prompt": "\n\n".join(message["content"] for message in texts[0]) if texts else "",
    }


def _unasked(interview: Interview, store: Store, batch: list[Question]) -> Iterator[tuple[list[Question], bool]]:
    """The first request about a batch that has no stored reply, if there is one."""
    for attempt in range(ATTEMPTS):
        found = store.get(interview.request(batch, again=attempt > 0)[0], len(batch))
        if found is None:
            yield batch, attempt > 0
            return
        batch = [question for i, question in enumerate(batch, 1) if found[0].of(i).missing]
        if not batch:
            return


def ask(interview: Interview, questions: Sequence[Question], key: str) -> Found:
    """Ask the server whatever the store does not know.

    Raises
    ------
    ConnectionError
        The server refuses, or does not reply; what was answered is kept.
    ValueError
        The next request could exceed `max_cost`; what was answered is kept.
    """
    run = _Run(interview, key)
    batches = interview.batches(questions)
    problem: Exception | None = None
    pool = ThreadPoolExecutor(interview.options.n_threads, thread_name_prefix="ask_llm")
    try:
        with progress_bar(total=len(batches), desc="asking", unit="requests") as bar:
            for future in as_completed([pool.submit(run.batch, batch) for batch in batches]):
                problem = problem or future.result()
                bar.update()
    finally:  # after an interrupt, too: replies on their way are waited for and kept, nothing new is sent
        run.line.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        run.close()
    if problem is not None or run.line.broken:
        raise _told(interview, run, None if run.line.broken else problem, len({*questions}))
    run.found.cost = run.money.spent + run.money.lost if interview.price is not None else float("nan")
    return run.found


def _told(interview: Interview, run: _Run, problem: Exception | None, n: int) -> Exception:
    """The error that ends a run, with how to go on."""
    done = sum(not answer.missing for answer in run.found.answers.values())
    kept = f"{done} of {n} different records are answered and kept: the same call goes on from there."
    if isinstance(problem, BudgetError):
        spent = run.money.spent + run.money.lost
        return ValueError(f"The next request could exceed `max_cost`={interview.max_cost} ({spent:.6g} spent). {kept}")
    if isinstance(problem, ServerError):
        return ConnectionError(
            f"{interview.server.url} (`base_url`) was asked for {interview.model!r}: {problem}. {kept}"
        )
    errors = interview.options.most_errors
    return ConnectionError(
        f"{interview.server.url} (`base_url`) failed {errors} times in a row (`most_errors`), last: {run.line.last}. {kept}"
    )


class _Run:
    """What the threads of one run share."""

    def __init__(self, interview: Interview, key: str) -> None:
        self.interview, self.found = interview, Found()
        self.line = Line(interview.options.most_errors)
        self.money = Budget(interview.price, interview.max_cost)
        self.store = Store(store_path(), write=True)
        self.chat = Chat(interview.server, key, interview.model, interview.options)
        self._lock = Lock()
        self._jitter = random.Random(interview.options.seed)  # noqa: S311 (no secret)

    def batch(self, batch: list[Question]) -> Exception | None:
        """Ask about some records; what stops the whole run is returned."""
        todo = batch
        try:
            for attempt in range(ATTEMPTS):
                reply = self._reply(todo, again=attempt > 0)
                with self._lock:
                    for i, question in enumerate(todo, 1):
                        self.found.answers[question] = reply.of(i)
                        self.found.attempts[question] += 1
                todo = [question for i, question in enumerate(todo, 1) if reply.of(i).missing]
                if not todo:
                    break
        except TransientError:
            with self._lock:
                for question in todo:
                    self.found.answers[question] = Answer(status=NO_REPLY)
        except (ServerError, BudgetError) as error:
            self.line.stop.set()
            return error
        return None

    def _reply(self, questions: list[Question], *, again: bool) -> Reply:
        """The reply to one request, which is in the store before anybody sees it."""
        interview, n = self.interview, len(questions)
        key, messages = interview.request(questions, again=again)
        known = self.store.get(key, n)
        if known is not None:
            with self._lock:
                self.found.stored += 1
                self._count(known[1])
            return known[0]
        if self.line.stop.is_set():
            text = "the run was stopped"
            raise TransientError(text, busy=True)
        most_in, most_out = tokens_most(messages, interview.extra), interview.options.max_tokens * n

        def send() -> tuple[Reply, dict[str, int]]:
            reserved = self.money.reserve(most_in, most_out, self.line.stop.is_set)
            settled = False
            try:
                with self._lock:
                    self.found.requests += 1
                said = self.chat.ask(messages, n)
                usage = {
                    "in": most_in if said.tokens_in is None else said.tokens_in,
                    "out": most_out if said.tokens_out is None else said.tokens_out,
                }
                self.money.settle(reserved, usage, most_in)
                settled = True
            except TransientError as error:
                settled = True
                self.money.give_up(reserved, lost=error.lost)
                raise
            finally:
                if not settled:
                    self.money.give_up(reserved, lost=False)
            prompt = messages[-1]["content"]
            return read_reply(said.content, said.finish, n=n, prompt=prompt), usage

        reply, usage = with_patience(send, self.line, max_seconds=interview.options.max_seconds, jitter=self._jitter)
        self.store.put(key, reply, usage)
        with self._lock:
            self._count(usage)
        return reply

    def _count(self, usage: dict[str, int]) -> None:
        for side, n in usage.items():
            self.found.tokens[side] += n

    def close(self) -> None:
        """Let go of the server and of the file."""
        self.chat.close()
        self.store.close()
