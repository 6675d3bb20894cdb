"""Progress bars: seen by somebody, or free of what could stop a process."""

from __future__ import annotations

import sys

from tqdm import tqdm

import sc_drugresp as sdr
from sc_drugresp._core.progress import progress_bar


def test_a_bar_that_nobody_sees_takes_no_lock(monkeypatch):
    """tqdm's lock is shared with forked processes: one that is killed while it holds it stops all others."""
    lock = tqdm.get_lock()
    taken = []
    monkeypatch.setattr(type(lock), "acquire", lambda self, *args, **kwargs: taken.append(self))
    with progress_bar(total=3) as bar:
        bar.update(2)
    assert taken == []


def test_a_terminal_sees_it(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with sdr.settings.override(progress=True), progress_bar(total=3, desc="embedding") as bar:
        bar.update(2)
        bar.refresh()
    assert "embedding" in capsys.readouterr().err
