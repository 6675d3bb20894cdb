"""Who computes which blocks: one process for each, and two never the same."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import Timeout

from ..._core.files import lock_at
from .errors import RunStoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .layout import Layout


@contextmanager
def held(layout: Layout, blocks: range) -> Iterator[None]:
    """Hold a range of blocks; to be entered by one process at a time, see :func:`~sc_drugresp._core.files.locked`.

    Raises
    ------
    RunStoppedError
        Somebody who lives holds some of them. Locks of killed processes are removed.
    """
    for place in sorted(layout.notes.glob("blocks-*.lock")):
        first, last = (int(text) for text in place.stem.split("-")[1:])
        if first < blocks.stop and blocks.start <= last:
            _clear(place, layout)
    place = layout.notes / f"blocks-{blocks.start:06d}-{blocks.stop - 1:06d}.lock"
    lock = lock_at(place, timeout=0)
    holder = _holder(place)
    try:
        holder.write_text(json.dumps(me()), encoding="utf-8")
        yield
    finally:
        for path in (holder, place):
            with suppress(OSError):  # a full disk, or a system that removes no open file
                path.unlink()
        lock.release()


def me() -> dict[str, str | int]:
    """What others are told of the process that holds a lock."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}


def _holder(lock: Path) -> Path:
    """The lock itself is emptied by everyone who tries it."""
    return lock.with_suffix(".holder")


def _clear(place: Path, layout: Layout) -> None:
    """Remove the lock of a process that is gone."""
    try:
        lock = lock_at(place, timeout=0)
    except Timeout as error:
        try:
            known = json.loads(_holder(place).read_text(encoding="utf-8"))
            who = f"process {known['pid']} on {known['host']} since {known['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        first, last = (int(text) for text in place.stem.split("-")[1:])
        msg = (
            f"Blocks {first} to {last} of {layout.root} are being computed by {who}. Wait for it or stop it; processes that "
            "work at one run need `shard=(i, n)` with the same n and different i."
        )
        raise RunStoppedError(msg) from error
    for path in (_holder(place), place):
        path.unlink(missing_ok=True)
    lock.release()
