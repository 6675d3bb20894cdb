"""Find published files on disk; say how to get them when they are not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._settings import settings

if TYPE_CHECKING:
    from ._spec import Checkpoint, ModelSpec, RemoteFile


def cache_folder(spec: ModelSpec, checkpoint: Checkpoint) -> Path:
    """Where the files of a checkpoint are kept."""
    return settings.cache_dir / "models" / spec.name / checkpoint.tag


def locate(spec: ModelSpec, checkpoint: Checkpoint, directory: Path | str | None = None) -> dict[str, Path]:
    """Path of each file of a checkpoint, by role.

    Parameters
    ----------
    spec, checkpoint
        Row of the registry.
    directory
        Folder (or the weights file in it) that holds the published files, as published or flat. `None` uses the cache.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message names it, its publisher and what to do.
    """
    folder = cache_folder(spec, checkpoint) if directory is None else Path(directory).expanduser()
    weights = None
    if folder.is_file():
        weights, folder = folder, folder.parent
    found = {role: _find(folder, file) for role, file in checkpoint.files.items()}
    if weights is not None:
        found["weights"] = weights
    missing = [file for role, file in checkpoint.files.items() if found[role] is None and not file.optional]
    if missing:
        raise FileNotFoundError(missing_message(spec, checkpoint, missing, folder))
    return {role: path for role, path in found.items() if path is not None}


def _find(folder: Path, file: RemoteFile) -> Path | None:
    """The relative path as published, then the name in the folder, then a unique match anywhere below."""
    for candidate in (folder / file.path, folder / file.name):
        if candidate.exists():
            return candidate
    if not folder.is_dir():
        return None
    below = sorted(folder.rglob(file.name))
    suffix = [path for path in below if path.as_posix().endswith(file.path)]
    return suffix[0] if len(suffix) == 1 else below[0] if len(below) == 1 else None


def missing_message(spec: ModelSpec, checkpoint: Checkpoint, missing: list[RemoteFile], folder: Path) -> str:
    """What is missing, who publishes it, and the manual step."""
    lines = [f"{spec.name}.{checkpoint.tag}: {len(missing)} file(s) not found in {folder}:"]
    for file in missing:
        size = f" ({file.bytes:,} bytes)" if file.bytes else ""
        how = file.manual or (f"download {file.urls[0]}" if file.urls else f"ask {checkpoint.publisher}")
        lines.append(f"  {file.path}{size}: {how}")
    lines.append(
        f"Published by {checkpoint.publisher} under {checkpoint.license}. Run "
        f"sc_drugresp.models.download('{spec.name}.{checkpoint.tag}') with a network, or put the files there by hand, "
        "or name their folder with `checkpoint=`."
    )
    return "\n".join(lines)
