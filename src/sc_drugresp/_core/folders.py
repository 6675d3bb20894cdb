"""Folders of files that belong together: all of the old ones or all of the new ones, at any moment."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from .files import locked, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

T = TypeVar("T")

READS = 20
"""How often to begin again when the folder is replaced while it is read."""
_AT_FDCWD, _SWAP = -100, 2
"""Of `renameat2(2)` on Linux; `renamex_np` of macOS has the same flag."""


@contextmanager
def draft_of_folder(path: Path, own: Collection[str]) -> Iterator[Path]:
    """A folder beside `path` to fill with files: it takes the place of `path` if the block ends well, and is removed if not.

    The two are exchanged in one step where the system can do that, else by two renames, which `standing` and the next
    call repair if the process is killed between them. What lies in `path` and is not one of ours stays there.

    Parameters
    ----------
    path
        The folder; a symbolic link keeps pointing where it points.
    own
        Names of the files in it that may go.
    """
    path = path.resolve()
    with locked(path):
        new, old = _beside(path)
        _clear(path)
        new.mkdir()
        try:
            yield new
            mode = new.stat().st_mode & 0o666  # the user's umask; safetensors keeps its files to their owner
            for file in new.iterdir():
                file.chmod(mode)
                sync(file)
            sync(new)
            if not path.exists():
                new.rename(path)
            else:
                _carry_over(path, new, own)
                if not exchange(path, new):
                    path.rename(old)
                    new.rename(path)
                _carry_over(new if new.exists() else old, path, own)  # what came while the folder was copied
            sync(path.parent)
        finally:
            _clear(path)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside a file, gone afterwards; what a killed process left in it goes first."""
    with locked(path):
        folder = path.with_name(f".{path.name}.sc_drugresp-unpacked")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def standing(path: Path) -> Path:
    """Where the files of a folder are: in it, or beside it if the process died while it was replaced."""
    old = _beside(path.resolve())[1]
    return old if old.exists() and not path.exists() else path


def read_whole(path: Path, name: str, read: Callable[[Path], T]) -> T:
    """Read a folder whose files belong together, again if it was replaced meanwhile.

    Parameters
    ----------
    path
        The folder.
    name
        The file in it that every writer writes anew.
    read
        Reads the folder that it is given.

    Raises
    ------
    OSError
        The folder is replaced again and again.
    """
    for _ in range(READS):
        folder = standing(path)
        before = _identity(folder, name)
        try:
            found = read(folder)
        except (OSError, ValueError):
            # Between two renames the folder may have been missing at both looks; it stands elsewhere then.
            if standing(path) == folder and _identity(folder, name) == before:
                raise
        else:
            if _identity(folder, name) == before:
                return found
    msg = f"{path} is replaced faster than it can be read."
    raise OSError(msg)


def _identity(folder: Path, name: str) -> tuple[int, int] | None:
    """What changes when another folder, or another file of that name, takes the place."""
    try:
        return folder.stat().st_ino, (folder / name).stat().st_mtime_ns
    except OSError:
        return None


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; `False` where this system or file system cannot."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        names = os.fsencode(first), os.fsencode(second)
        if sys.platform == "darwin":
            return library.renamex_np(*names, _SWAP) == 0
        return library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _SWAP) == 0
    except (AttributeError, OSError, TypeError):  # no such function, or no C library to ask (Windows)
        return False


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.sc_drugresp-new"), path.with_name(f".{path.name}.sc_drugresp-old")


def _clear(path: Path) -> None:
    """Undo a replacement that stopped half-way and remove what it left."""
    new, old = _beside(path)
    if old.exists() and not path.exists():
        old.rename(path)
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)


def _carry_over(source: Path, target: Path, own: Collection[str]) -> None:
    """Put what is not ours in `source` into `target` too."""
    for item in source.iterdir():
        place = target / item.name
        if item.name in own or os.path.lexists(place):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, place, symlinks=True, copy_function=_link)
        else:
            _link(item, place)


def _link(source: str | Path, target: str | Path) -> None:
    """One more name for a file; a copy where the file system has one name per file."""
    with suppress(OSError):
        os.link(source, target, follow_symlinks=False)
        return
    shutil.copy2(source, target, follow_symlinks=False)
