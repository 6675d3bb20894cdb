"""Tokens and money: estimated before the start, reserved before each request, counted after each reply."""

from __future__ import annotations

import math
from threading import Condition
from typing import TYPE_CHECKING

from .retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .prompts import Messages

BYTES_PER_TOKEN = 2.4
"""Of lists of gene symbols, which tokenizers of language models cut into short pieces."""
_FRAME = 16
"""Tokens around each message."""


class BudgetError(Exception):
    """The next request could cost more than is left."""


def tokens_expected(messages: Messages, extra: int = 0) -> int:
    """About how many tokens messages have."""
    return math.ceil(_bytes(messages, extra) / BYTES_PER_TOKEN) + _FRAME * len(messages)


def tokens_most(messages: Messages, extra: int = 0) -> int:
    """More tokens than messages can have: tokenizers make at most one of each byte."""
    return _bytes(messages, extra) + _FRAME * len(messages)


def _bytes(messages: Messages, extra: int) -> int:
    return sum(len(message["content"].encode()) for message in messages) + extra


class Budget:
    """What was spent and what open requests may still cost. One for all threads.

    Parameters
    ----------
    price
        Of a million tokens, in and out; `None` where it is not known.
    most
        What must not be exceeded; `None` for no limit.
    """

    def __init__(self, price: tuple[float, float] | None, most: float | None) -> None:
        self.price, self.most = price, most
        self.spent = self.lost = 0.0
        self._open: list[float] = []
        self.tokens = {"in": 0, "out": 0}
        self._worst = 1.0
        self._change = Condition()

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Price of tokens; NaN where the price is not known."""
        if self.price is None:
            return math.nan
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6

    def reserve(self, tokens_in: int, tokens_out: int, stopped: Callable[[], bool]) -> float:
        """Set aside what a request can cost at most; waits for open requests if they hold what is missing.

        Raises
        ------
        BudgetError
            It is more than is left.
        TransientError
            Everything stops.
        """
        if self.price is None:
            return 0.0
        with self._change:
            while not stopped():
                need = self.cost(tokens_in * self._worst, tokens_out)
                if self.most is None or self.spent + self.lost + sum(self._open) + need <= self.most:
                    self._open.append(need)
                    return need
                if not self._open:
                    raise BudgetError
                self._change.wait(0.1)
        text = "the run was stopped"
        raise TransientError(text, busy=True)

    def settle(self, reserved: float, usage: dict[str, int], tokens_in: int) -> None:
        """Count what a reply did cost in place of what was reserved."""
        with self._change:
            self._close(reserved)
            for side, n in usage.items():
                self.tokens[side] += n
            if self.price is not None:
                self.spent += self.cost(usage["in"], usage["out"])
            self._worst = max(self._worst, usage["in"] / max(tokens_in, 1))
            self._change.notify_all()

    def _close(self, reserved: float) -> None:
        if reserved in self._open:  # a price that is not known reserves nothing
            self._open.remove(reserved)

    def give_up(self, reserved: float, *, lost: bool) -> None:
        """Free what was reserved for a request without a reply, or count all of it if the server may bill it."""
        with self._change:
            self._close(reserved)
            if lost:
                self.lost += reserved
            self._change.notify_all()
