"""Terms of publishers: shown, accepted once, and recorded in the cache."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .._core.files import write_text
from .._core.log import logger
from .._core.settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from ._screen_registry import Terms


def require_terms(terms: list[Terms], *, accept: bool, call: str) -> None:
    """Go on only if all terms are accepted, now or before; a new acceptance is recorded with its date.

    Terms whose text has changed since have to be accepted again.

    Parameters
    ----------
    terms
        Terms of the files that are needed.
    accept
        Whether the caller accepts them now.
    call
        What to run to accept them, for the message.

    Raises
    ------
    PermissionError
        Some terms have not been accepted; the message shows them.
    """
    path = record_path()
    known = _read(path)
    open_terms = [one for one in terms if known.get(one.name, {}).get("sha256") != _digest(one)]
    if not open_terms:
        return
    if not accept:
        shown = "\n\n".join(one.text for one in open_terms)
        msg = f"The terms of the data have to be accepted once:\n\n{shown}\n\nTo accept them and go on: {call}"
        raise PermissionError(msg)
    for one in open_terms:
        logger.info("terms accepted: %s (%s)", one.licence, one.page)
        known[one.name] = {
            "sha256": _digest(one),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "licence": one.licence,
            "page": one.page,
        }
    write_text(path, json.dumps(known, indent=1, sort_keys=True))


def record_path() -> Path:
    """The file that says which terms were accepted when."""
    return settings.cache_dir / "screens" / "accepted_terms.json"


def _digest(terms: Terms) -> str:
    return hashlib.sha256(terms.text.encode()).hexdigest()


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:
        logger.info("%s is damaged: the terms have to be accepted again", path)
        return {}
