"""One HTTP transfer into a partial file: resumed where that is safe, refused early, cut off when it drags on."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from .connection import TransferError, address_of, answer, session_for, unreachable
from .expected import HEAD, Expected, wrong_content
from .progress import progress_bar
from .watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    import requests

CHUNK = 1 << 20
GONE = frozenset({400, 401, 403, 404, 405, 410, 451})
"""HTTP statuses that a retry cannot fix."""


def transfer(url: str, part: Path, name: str, expected: Expected) -> str | None:
    """Bring the rest of the file to `part`, to which nobody else writes meanwhile.

    Returns
    -------
    SHA-256 that the Hugging Face Hub states for the file, where it does.

    Raises
    ------
    TransferError
        The file did not come.
    OSError
        The disk is full, read-only, ...
    """
    import requests
    import urllib3

    with Watch() as watch:
        try:
            address, headers = address_of(url)
            with session_for(watch) as session:
                return _receive(session, address, headers, part, name, expected, watch)
        except (requests.RequestException, urllib3.exceptions.HTTPError, EOFError, OSError) as error:
            if watch.reason:
                raise TransferError(watch.reason, again=watch.received >= CHUNK) from error
            if unreachable(error):
                text = "the server cannot be reached; is there a network?"
                raise TransferError(text) from error
            if not isinstance(error, requests.RequestException) and isinstance(error, OSError) and error.errno:
                raise  # the disk, not the network
            text = f"{type(error).__name__}: {error}"
            raise TransferError(text, again=not isinstance(error, ValueError)) from error  # ValueError: a bad address


def tag_of(part: Path) -> Path:
    """Where the version of the file that a partial one belongs to is noted."""
    return part.with_name(f"{part.name}.tag")


def discard(part: Path) -> None:
    """Remove a partial file."""
    part.unlink(missing_ok=True)
    tag_of(part).unlink(missing_ok=True)


def _receive(
    session: requests.Session, address: str, headers: dict[str, str], part: Path, name: str, expected: Expected, watch: Watch
) -> str | None:  # fmt: skip
    have = _resumable(part, expected)
    if have:
        headers = headers | {"Range": f"bytes={have}-"}
        if not expected.hashed:
            headers["If-Range"] = tag_of(part).read_text(encoding="utf-8")
    response, linked = answer(session, address, headers, timeout=watch.timeout)
    with response:
        if watch.reason:  # headers that were cut off look like headers that ended
            raise TransferError(watch.reason)
        _check_status(response, part)
        start = have if response.status_code == 206 else 0
        length = _length(response)
        total = None if length is None else start + length
        _check_headers(response, part, name, expected, start, total)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified", "")
        if not start:
            discard(part)
            if tag and not tag.startswith("W/"):
                tag_of(part).write_text(tag, encoding="utf-8")
        _write(response, part, name, expected, start, total, watch)
    return next((text for text in linked if re.fullmatch("[0-9a-f]{64}", text)), None)


def _resumable(part: Path, expected: Expected) -> int:
    """Bytes that need not come again: only where a checksum or the server can tell whether the parts fit."""
    if part.is_symlink() or not part.is_file() or not (expected.hashed or tag_of(part).is_file()):
        discard(part)
        return 0
    return part.stat().st_size


def _check_status(response: requests.Response, part: Path) -> None:
    status = response.status_code
    if status == 416:  # nothing beyond what we have: what we have is wrong
        discard(part)
        text = "the partial file does not fit; starting again"
        raise TransferError(text, again=True)
    if status not in {200, 206}:
        said = response.headers.get("X-Error-Message", "")[:300]
        text = f"the server answered {status}" + (f" ({said})" if said else "")
        if status in {401, 403} and response.headers.get("X-Error-Code") == "GatedRepo":
            text += "; accept its terms on the Hugging Face Hub and log in with `hf auth login`"
        raise TransferError(text, again=status >= 400 and status not in GONE)


def _check_headers(
    response: requests.Response, part: Path, name: str, expected: Expected, start: int, total: int | None
) -> None:
    """Refuse before the body comes."""
    headers = response.headers
    if response.status_code == 206:
        found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
        fits = int(found[1]) == start if found else expected.hashed
        if not start or not fits:
            discard(part)
            text = f"the server sent another part of the file than bytes {start:,} and on"
            raise TransferError(text, again=bool(start))
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in {"identity", ""} and not expected.hashed and not name.endswith((".gz", ".tgz")):
        text = f"the server compressed the file ({encoding}) though it was asked not to"
        raise TransferError(text)
    kind = headers.get("Content-Type", "").lower()
    if kind.startswith("text/html") and not expected.hashed and not name.endswith((".html", ".htm")):
        text = "it is a web page, perhaps one to log in"
        raise TransferError(text, wrong=True)
    if total is None:
        if expected.size is None and not expected.hashed and "chunked" not in headers.get("Transfer-Encoding", ""):
            text = "the server does not say how long the file is, so that nobody could tell if it is cut short"
            raise TransferError(text)
        return
    if expected.size is not None and total != expected.size:
        text = f"it has {total:,} bytes instead of {expected.size:,}"
        raise TransferError(text, again=True, wrong=True)
    if total > expected.most:
        text = f"it has {total:,} bytes, at most {expected.most:,} were expected"
        raise TransferError(text, wrong=True)
    if total - start > (free := shutil.disk_usage(part.parent).free):
        text = f"it needs {total - start:,} bytes, {free:,} are free in {part.parent}"
        raise TransferError(text)


def _write(
    response: requests.Response, part: Path, name: str, expected: Expected, start: int, total: int | None, watch: Watch
) -> None:
    most = expected.most if total is None else total
    have, looked = start, start > 0
    with progress_bar(total=total, desc=name, unit="B") as bar, part.open("ab" if start else "wb") as file:
        # Not `iter_content`, which drops what had arrived when a connection breaks; `read1` gives it at once.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            have += len(chunk)
            watch.received += len(chunk)
            if have > most:
                text = f"the server sends more than {most:,} bytes"
                raise TransferError(text, wrong=True)
            file.write(chunk)
            bar.update(len(chunk))
            if not looked and have >= HEAD:
                looked = True
                file.flush()
                with part.open("rb") as begun:
                    if problem := wrong_content(name, begun.read(HEAD)):
                        raise TransferError(problem, wrong=True)
    if watch.reason:
        raise TransferError(watch.reason, again=watch.received >= CHUNK)
    if total is not None and have != total:
        text = f"IncompleteRead: the connection ended after {have:,} of {total:,} bytes"
        raise TransferError(text, again=True)


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None
