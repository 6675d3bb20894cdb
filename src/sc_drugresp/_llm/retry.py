"""The one layer that asks again: back-off with jitter, `Retry-After`, a cap on the time, and an end after errors in a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.imports import require

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

T = TypeVar("T")
FIRST, LONGEST = 0.5, 30.0
"""Seconds of the first back-off, and of the longest."""


class TransientError(Exception):
    """Nothing came back, and another try could help.

    Parameters
    ----------
    text
        What happened, in words of ours.
    wait
        Seconds that the server asked for.
    busy
        The server only asks for patience.
    lost
        The server may have worked, and may bill it.
    """

    def __init__(self, text: str, *, wait: float | None = None, busy: bool = False, lost: bool = False) -> None:
        super().__init__(text)
        self.wait, self.busy, self.lost = wait, busy, lost


class ServerError(Exception):
    """The server refuses, so that every other request would fail as well."""


@dataclass
class Line:
    """What all threads know of the connection: whether to stop, and how many errors came in a row."""

    most_errors: int
    stop: Event = field(default_factory=Event)
    last: str = ""
    _errors: int = 0
    _lock: Lock = field(default_factory=Lock)

    def failed(self, text: str) -> None:
        """Count an error; too many in a row stop everything."""
        with self._lock:
            self._errors, self.last = self._errors + 1, text
            if self._errors >= self.most_errors:
                self.stop.set()

    def worked(self) -> None:
        """A reply came."""
        with self._lock:
            self._errors = 0

    @property
    def broken(self) -> bool:
        """Whether too many errors came in a row."""
        return self._errors >= self.most_errors


def pause(line: Line, seconds: float) -> None:
    """Wait, unless everything stops."""
    line.stop.wait(seconds)


def with_patience(send: Callable[[], T], line: Line, *, max_seconds: float, jitter: random.Random) -> T:
    """Call until a reply comes.

    Raises
    ------
    TransientError
        None came: time is up, or everything stops.
    ServerError
        None will come.
    """
    tenacity = require("tenacity", extra="llm")

    def attempt() -> T:
        try:
            found = send()
        except TransientError as error:
            if not error.busy:
                line.failed(str(error))
            raise
        line.worked()
        return found

    def wait(state: Any) -> float:
        spread = jitter.uniform(0.5, 1.0) * min(LONGEST, FIRST * 2.0 ** min(state.attempt_number, 16))
        asked = state.outcome.exception().wait
        return spread if asked is None else asked + FIRST * spread

    def enough(state: Any) -> bool:
        spent = max(state.seconds_since_start or 0.0, state.idle_for)
        return line.stop.is_set() or spent + state.upcoming_sleep > max_seconds

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        wait=wait,
        stop=enough,
        sleep=lambda seconds: pause(line, seconds),
        reraise=True,
    )
    try:
        return again(attempt)
    except TransientError as error:
        if error.busy and not line.stop.is_set():
            line.failed(str(error))
        raise
