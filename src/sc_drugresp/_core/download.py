"""Bring one published file to disk: verified, retried, locked, and resumed where that is safe."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from .connection import TransferError
from .expected import Expected, record_of
from .files import left_behind, locked, part_of, put_in_place, write_text
from .log import logger
from .settings import settings
from .transfer import discard, tag_of, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def fetch(
    path: Path,
    urls: Sequence[str],
    expected: Expected | None = None,
    *,
    manual: str = "",
    attempts: int = 3,
    pause: float = 1.0,
    force: bool = False,
) -> Path:
    """Download the first of `urls` that delivers the expected file, unless it is already there.

    Without a known checksum the first download is trusted, unless it is empty, cut short or a web page: its SHA-256 is
    kept in `<path>.sha256`, and the file itself and every later download must agree with it. A file that is there is
    compared once per process. A partial file is kept, and resumed by the next call, where a checksum or the server's
    version tag can tell whether the parts fit; otherwise nothing is left behind. Threads and processes that want the
    same file wait for the first of them. A server that cannot be reached at all is asked once.

    Parameters
    ----------
    path
        Where the file goes. It appears there complete and verified, or not at all.
    urls
        `https://` or `hf://owner/repo@revision/file`.
    expected
        Size and checksums.
    manual
        What to do by hand, for the error messages.
    attempts
        Tries per URL.
    pause
        Seconds before the second try; doubled each time.
    force
        Forget the remembered SHA-256 and download anew; the old file stays until the new one is complete.

    Raises
    ------
    ConnectionError
        The network is off limits (`settings.offline`), or no URL answered.
    ValueError
        What arrived is not the expected file.
    """
    known = expected or Expected()
    hint = f"\nBy hand: {manual}" if manual else ""
    problem = None if force else known.or_remembered(path).problem_once(path)
    if problem is None and not force:
        if left_behind(path):  # by a killed process, or one that is at work
            with suppress(OSError), locked(path):
                discard(part_of(path))
        return path
    if settings.offline:
        damaged = f", {problem}" if path.exists() and problem else ""
        msg = f"{path.name} is not in {path.parent}{damaged} and settings.offline forbids the network.{hint}"
        raise ConnectionError(msg)
    if path.exists() and problem:
        logger.warning("%s is not the published file: %s; it is downloaded again", path, problem)
    with locked(path):
        if force:  # what is remembered is replaced when the new file is here
            discard(part_of(path))
        else:
            known = known.or_remembered(path)
            if known.problem_once(path) is None:  # another thread or process was quicker
                discard(part_of(path))
                return path
        return _fetch(path, urls, known, hint, attempts=attempts, pause=pause)


def _fetch(path: Path, urls: Sequence[str], expected: Expected, hint: str, *, attempts: int, pause: float) -> Path:
    part, record = part_of(path), record_of(path)
    failures: list[str] = []
    wrong = False
    try:
        for url in urls:
            for attempt in range(attempts):
                if attempt:
                    time.sleep(pause * 2 ** (attempt - 1))
                logger.info("downloading %s from %s", path.name, url)
                try:
                    stated = transfer(url, part, path.name, expected)
                    if not expected.hashed and stated:
                        _check(part, path.name, replace(expected, sha256=stated))
                    _check(part, path.name, expected)
                except TransferError as failure:
                    kind = "the file is not the published one: " if failure.wrong else ""
                    failures.append(f"{url}: {kind}{failure}")
                    if failure.wrong:
                        wrong = True
                        discard(part)
                    if not failure.again:
                        break
                else:
                    if not expected.hashed:
                        import pooch

                        write_text(record, f"{pooch.file_hash(str(part))}  {path.name}\n")
                    put_in_place(part, path)
                    return path
    finally:
        if not (part.exists() and part.stat().st_size and (expected.hashed or tag_of(part).exists())):
            discard(part)
    tried = "\n  ".join(dict.fromkeys(failures)) or "no address is known for it"
    if wrong and record.is_file():
        hint += f"\nTo accept a file that its publisher has changed, download it with force=True, or remove {record}."
    msg = f"Could not download {path.name}:\n  {tried}{hint}"
    raise (ValueError if wrong else ConnectionError)(msg)


def _check(part: Path, name: str, expected: Expected) -> None:
    problem = expected.problem(part, name=name) if part.is_file() else "it is empty"
    if problem:
        raise TransferError(problem, again=expected.hashed, wrong=True)
