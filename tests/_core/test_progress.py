"""Progress bars: for long work, seen by somebody, and free of what could stop a process."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from tqdm import tqdm

import sc_drugresp as sdr
from sc_drugresp._core import progress
from sc_drugresp._core.progress import progress_bar


class Clock:
    """Time that passes when it is told to."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@contextlib.contextmanager
def terminal():
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    with sdr.settings.override(progress=True), contextlib.redirect_stderr(stream):
        yield stream


def steps(bar, clock, *seconds: float, n: float = 10) -> list[bool]:
    """Whether the bar is there after each step of `n`."""
    seen = []
    for passed in seconds:
        clock.now += passed
        bar.update(n)
        seen.append(bar.bar is not None)
    return seen


def test_a_bar_that_nobody_sees_takes_no_lock(monkeypatch):
    """tqdm's lock is shared with forked processes: one that is killed while it holds it stops all others."""
    lock = tqdm.get_lock()
    taken = []
    monkeypatch.setattr(type(lock), "acquire", lambda self, *args, **kwargs: taken.append(self))
    with progress_bar(total=3) as bar:
        bar.update(2)
    assert taken == []


def test_it_shows_pace_and_time_left(clock):
    with terminal() as screen, progress_bar(total=1_000, desc="embedding") as bar:
        assert steps(bar, clock, 5.0) == [True]
        text = screen.getvalue()
        assert "embedding" in text
        assert "10/1000" in text
        assert "2.00 cells/s" in text
        assert "08:15" in text  # 990 cells at two in a second
        clock.now += 100


def test_short_work_is_silent(clock):
    with terminal() as screen, progress_bar(total=100) as bar:
        assert not any(steps(bar, clock, *[11.0] * 10))
    assert screen.getvalue() == ""


def test_the_first_moment_says_nothing(clock):
    """The first batch warms up: a slow start alone is no long run."""
    with terminal(), progress_bar(total=100) as bar:
        assert steps(bar, clock, 2.9, 1.0, 1.0) == [False] * 3


def test_it_appears_when_the_pace_falls(clock):
    with terminal(), progress_bar(total=100) as bar:
        assert steps(bar, clock, 5.0, 5.0, 40.0) == [False, False, True]


def test_without_a_total_it_appears_after_two_minutes(clock):
    with terminal(), progress_bar(unit="B") as bar:
        assert steps(bar, clock, 100.0, 19.0, 1.0) == [False, False, True]


def test_nobody_looks(clock, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with sdr.settings.override(progress=True), progress_bar(total=1_000) as bar:
        assert steps(bar, clock, 500.0) == [False]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with sdr.settings.override(progress=False), progress_bar(total=1_000) as bar:
        assert steps(bar, clock, 500.0) == [False]
