"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: it takes the place of `path` if the block ends well, and is removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(path: Path, marker: str, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside `path` to fill: it takes the place of `path` if the block ends well, and is removed if not.

    Raises
    ------
    FileExistsError
        The path exists and `overwrite` is false, or it does not hold the file `marker`.
    """
    if path.exists() and not (overwrite and (path / marker).is_file()):
        msg = f"{path} exists. Choose another path" + ("." if overwrite else ", or pass overwrite=True.")
        raise FileExistsError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield draft
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def copy_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write the content of a regular file in an archive to `path`; its name, owner and mode are not used."""
    source = archive.extractfile(member)
    if source is None:
        msg = f"{member.name} in {archive.name!r} is not a regular file."
        raise ValueError(msg)
    with source, draft_of(path) as draft, draft.open("wb") as out:
        shutil.copyfileobj(source, out)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")
