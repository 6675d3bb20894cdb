"""Files of a screen on this machine: the user's folders, the cache, a download that is what it says."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.download import fetch
from .._core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._screen_registry import ScreenFile


def places_of(folder: Path | str | Sequence[Path | str]) -> list[Path]:
    """Folders or files that a user named.

    Raises
    ------
    FileNotFoundError
        One of them does not exist.
    """
    named = [folder] if isinstance(folder, Path | str) else list(folder)
    places = [Path(place).expanduser() for place in named]
    if missing := [str(place) for place in places if not place.exists()]:
        msg = f"`folder` names what does not exist: {missing}."
        raise FileNotFoundError(msg)
    return places


def present(file: ScreenFile, hint: str = "") -> Path:
    """Path of a published file: in `settings.data_dir` (also its folder `screens`), in the cache, or downloaded now.

    Parameters
    ----------
    file
        Row of the registry.
    hint
        What else the user may try, for the message.

    Raises
    ------
    ConnectionError
        It has to be downloaded and cannot be, or the address delivers a web page instead.
    ValueError
        What arrived is not the published file.
    """
    own = settings.data_dir
    for path in (own / file.name, own / "screens" / file.name) if own is not None else ():
        if path.is_file():
            return path
    path = settings.cache_dir / "screens" / file.folder / file.name
    manual = f"get {file.name} (about {file.about_bytes / 1e6:,.1f} MB) from {file.page} and put it into {path.parent}.{hint}"
    fetch(path, file.urls, file.expected, manual=manual)
    if not file.expected.hashed and _is_web_page(path):
        path.unlink()
        path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
        msg = f"{file.urls[0]} delivers a web page and not {file.name}.\nBy hand: {manual}"
        raise ConnectionError(msg)
    return path


def _is_web_page(path: Path) -> bool:
    """Whether a file is something else than its name says: publishers answer with a page when a file has moved."""
    if path.suffix == ".zip":
        return not zipfile.is_zipfile(path)
    with path.open("rb") as file:
        return file.read(200).lstrip().startswith(b"<")
