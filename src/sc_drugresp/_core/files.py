"""Files that appear complete or not at all, whoever else writes them and whenever the process is killed."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .log import logger

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from pathlib import Path

    from filelock import BaseFileLock

PATIENCE = 5.0
"""Seconds of waiting for somebody else before it is told."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""The disk is full, the user's share of it is, or it failed."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one thread of one process at a time write `path`; the lock is a hidden file beside it, gone afterwards."""
    from filelock import Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    try:
        lock = lock_at(place, timeout=PATIENCE)
    except Timeout:
        logger.info("waiting for another process or thread that writes %s", path)
        lock = lock_at(place)
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: who waits for it sees that the name is gone, and makes a new one
            place.unlink()
        lock.release()


def lock_at(place: Path, timeout: float = -1) -> BaseFileLock:
    """A lock that is held: the system's own, which ends with the process, or a file where the disk knows none.

    Raises
    ------
    filelock.Timeout
        Somebody else holds it for longer than `timeout` seconds; a negative number waits for ever.
    """
    from filelock import FileLock, SoftFileLock

    lock: BaseFileLock = FileLock(place)
    try:
        lock.acquire(timeout=timeout)
    except NotImplementedError:  # a file system without `flock`
        lock = SoftFileLock(place)
        lock.acquire(timeout=timeout)
    return lock


def part_of(path: Path) -> Path:
    """The unfinished file beside `path`; one name, so that the next writer finds what a killed one left."""
    return path.with_name(f".{path.name}.part")


def left_behind(path: Path) -> bool:
    """Whether a killed process left a lock or an unfinished file beside `path`."""
    return part_of(path).exists() or path.with_name(f".{path.name}.lock").exists()


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: it takes the place of `path` if the block ends well, and is removed if not."""
    with locked(path):
        draft = part_of(path)
        draft.unlink(missing_ok=True)
        try:
            yield draft
            put_in_place(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def put_in_place(draft: Path, path: Path) -> None:
    """Rename a finished draft, after its bytes have reached the disk."""
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk, where the system can say.

    Raises
    ------
    OSError
        The disk is full or failed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise  # others: some network disks know no fsync
    finally:
        os.close(descriptor)


def copy_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write the content of a regular file in an archive to `path`, where it appears complete or not at all.

    Raises
    ------
    ValueError
        It is not a regular file, or the archive ends before it does.
    """
    with draft_of(path) as draft:
        write_member(archive, member, draft)


def write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write the content of a regular file in an archive; its name, owner and mode are not used.

    Raises
    ------
    ValueError
        It is not a regular file, or the archive ends before it does.
    """
    source = archive.extractfile(member) if member.isfile() and not member.issparse() else None
    if source is None:
        msg = f"{member.name} in {archive.name!r} is not a regular file."
        raise ValueError(msg)
    with source, path.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
        found = out.tell()
    if found != member.size:
        msg = f"{archive.name!r} is cut short: {member.name} has {found:,} of its {member.size:,} bytes."
        raise ValueError(msg)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")
