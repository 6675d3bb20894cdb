"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from pathlib import Path


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
