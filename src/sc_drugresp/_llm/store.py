"""Answers that were paid for, on the disk: neither the question nor the key is in the file."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from .._core.settings import settings
from .replies import ABSENT, ANSWERED, FILTERED, TRUNCATED, UNPARSABLE, Answer, Reply

if TYPE_CHECKING:
    from pathlib import Path

_STATUSES = (ABSENT, UNPARSABLE, TRUNCATED, FILTERED)
_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT, usage TEXT, created TEXT) WITHOUT ROWID"


def store_path() -> Path:
    """File of the answers."""
    return settings.cache_dir / "llm" / "answers.sqlite"


def key_of(parts: dict[str, Any]) -> str:
    """SHA-256 of everything that an answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class Store:
    """Checked replies by key, for any number of threads and processes. The file is made when it is opened for writing.

    Parameters
    ----------
    path
        The file, which only the user may read.
    write
        Make the file if there is none.

    Raises
    ------
    ValueError
        The file is no store of answers.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self._lock = Lock()
        self._db: sqlite3.Connection | None = None
        if not write and not path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with suppress(OSError):  # somebody else's file: sqlite will tell
            path.chmod(0o600)
        try:
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)
        except sqlite3.DatabaseError as error:
            self.close()
            msg = f"{str(path)!r} (settings.cache_dir) cannot be used as a store of answers: {error}. Move it away."
            raise ValueError(msg) from error

    def get(self, key: str, n: int) -> tuple[Reply, dict[str, int]] | None:
        """The reply to a question about `n` records, with the tokens that it cost; `None` if it was not asked yet."""
        if self._db is None:
            return None
        with self._lock:
            row = self._db.execute("SELECT reply, usage FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else _read(row[0], row[1], n)

    def put(self, key: str, reply: Reply, usage: dict[str, int]) -> None:
        """Keep a reply; it is on the disk when this returns."""
        answers = {str(i): [a.call, a.confidence, a.reason] for i, a in reply.answers.items()}
        text = json.dumps({"answers": answers, "status": reply.status})
        row = (key, text, json.dumps(usage), datetime.now(UTC).isoformat(timespec="seconds"))
        if self._db is not None:
            with self._lock:
                self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _read(reply: str, usage: str, n: int) -> tuple[Reply, dict[str, int]] | None:
    """What was stored, checked again: a file can be changed by anybody who can write to it."""
    from pydantic import ValidationError

    from .replies import record_model

    try:
        found, spent = json.loads(reply), json.loads(usage)
        answers = {}
        for name, (call, confidence, reason) in found["answers"].items():
            record_model().model_validate({"id": int(name), "call": call, "confidence": confidence, "reason": reason})
            answers[int(name)] = Answer(call, confidence, reason, ANSWERED)
        tokens = {side: int(spent[side]) for side in ("in", "out")}
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return None
    fits = found.get("status") in _STATUSES and set(answers) <= set(range(1, n + 1))
    return (Reply(answers, found["status"]), tokens) if fits else None
