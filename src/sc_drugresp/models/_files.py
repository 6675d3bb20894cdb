"""Files from elsewhere, before a byte of them is believed: regular, not empty, text in UTF-8, JSON of a sane depth."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LARGEST_TEXT = 256_000_000


def check_file(path: Path) -> Path:
    """Check that a path leads to a regular file with content; nothing is opened, so that a pipe cannot block.

    Raises
    ------
    FileNotFoundError
        There is nothing, or a link that leads nowhere.
    ValueError
        It is a folder, a pipe or a device, or an empty file.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        why = "a link that leads nowhere" if path.is_symlink() else "not there"
        msg = f"{path} is {why}; expected a file. Get it from its publisher, or correct the path."
        raise FileNotFoundError(msg) from error
    if not stat.S_ISREG(status.st_mode):
        found = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        msg = f"{path} is {found}; expected a file. Correct the path, or put the published file there."
        raise ValueError(msg)
    if not status.st_size:
        msg = f"{path} is empty (0 bytes); expected a published file. Delete it and download it again."
        raise ValueError(msg)
    return path


def read_text(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises
    ------
    ValueError
        It is no text in UTF-8, or far too large.
    FileNotFoundError
        There is no such file.
    """
    size = check_file(path).stat().st_size
    if size > _LARGEST_TEXT:
        msg = f"{path} has {size:,} bytes; expected a text file of at most {_LARGEST_TEXT:,}. It is another file."
        raise ValueError(msg)
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path} is not text in UTF-8 ({error}). Save it as UTF-8, or download it again."
        raise ValueError(msg) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without white space around them and without empty ones, see :func:`read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises
    ------
    ValueError
        The file is not JSON, or not an object.
    FileNotFoundError
        There is no such file.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of more digits, and deeper nesting, than Python takes
        msg = f"{path} is not valid JSON ({error}). Download it again."
        raise ValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} should hold a JSON object, found {type(value).__name__}. Download it again."
        raise ValueError(msg)
    return value
