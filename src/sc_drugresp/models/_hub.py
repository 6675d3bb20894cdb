"""Find published files on disk, download and verify them, or say how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._core.arguments import checked
from .._core.download import fetch
from .._core.log import warn
from .._core.settings import settings
from ._registry import find

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

    from ._spec import Checkpoint, ModelSpec, RemoteFile

_warned: set[str] = set()
# Hugging Face publishes the same weights in two formats.
_TWINS = {"model.safetensors": "pytorch_model.bin", "pytorch_model.bin": "model.safetensors"}


def cache_folder(spec: ModelSpec, checkpoint: Checkpoint) -> Path:
    """Folder of the cache in which the files of a checkpoint are kept."""
    return settings.cache_dir / "models" / spec.name / checkpoint.tag


def locate(spec: ModelSpec, checkpoint: Checkpoint, directory: str | PathLike[str] | None = None) -> dict[str, Path]:
    """Path of each file of a checkpoint, by role; with no `directory`, missing files are downloaded into the cache.

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
    folder, found = _at_hand(spec, checkpoint, directory)
    missing = [file for role, file in checkpoint.files.items() if role not in found and not file.optional]
    if missing and directory is None and not settings.offline and all(file.urls for file in missing):
        return _download(spec, checkpoint, folder)
    if missing:
        raise FileNotFoundError(missing_message(spec, checkpoint, missing, folder))
    return found


def to_fetch(spec: ModelSpec, checkpoint: Checkpoint, directory: str | PathLike[str] | None = None) -> list[RemoteFile]:
    """Files that :func:`locate` would have to download; nothing is downloaded.

    Raises
    ------
    FileNotFoundError
        A file is missing in `directory`, where nothing is downloaded to.
    """
    if directory is not None:
        locate(spec, checkpoint, directory)
        return []
    _, found = _at_hand(spec, checkpoint, None)
    needed = {role: file for role, file in checkpoint.files.items() if role not in found and not file.optional}
    more = {role: file for role, file in checkpoint.files.items() if role not in found and file.urls} if needed else {}
    return list((needed | more).values())


def _at_hand(
    spec: ModelSpec, checkpoint: Checkpoint, directory: str | PathLike[str] | None
) -> tuple[Path, dict[str, Path]]:
    """The folder that is looked into, and what is there."""
    if directory is None:
        folder = cache_folder(spec, checkpoint)
        return folder, _present(spec, checkpoint, folder)
    folder = Path(directory).expanduser()
    weights = {"weights": folder} if folder.is_file() else {}
    folder = folder.parent if weights else folder
    return folder, {**_search(checkpoint, folder), **weights}


@checked
def download(name: str, to: Path | str | None = None, *, force: bool = False) -> dict[str, Path]:
    """Download the published files of a model, verified, without loading them.

    Files that are there already, with the published size and checksum, are left alone and need no network; where the
    publisher states no checksum, that of the first download is remembered beside the file (`<file>.sha256`).
    Interrupted downloads go on where they stopped if a checksum or the server's version tag tells that the parts fit.
    Threads and processes that want the same file wait for the first of them.

    Parameters
    ----------
    name
        `'model'` or `'model.checkpoint'`, see :func:`~sc_drugresp.models.table`.
    to
        Folder to write to. `None` means the cache, where :func:`~sc_drugresp.models.load` looks.
    force
        Download again what is there, and forget the remembered checksums: for a file that its publisher has changed.

    Returns
    -------
    Path of each file, by its role (`weights`, `config`, `vocab`, ...).

    Raises
    ------
    ValueError
        There is no such model, it has no files, or what arrived is not the published file.
    FileNotFoundError
        The publisher offers no address that a program can use; the message gives the manual step.
    ConnectionError
        The network is off limits (`settings.offline`) or no server answered.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.models.download("geneformer.v2-104m")  # doctest: +SKIP
    """
    spec, checkpoint = _with_files(name)
    folder = cache_folder(spec, checkpoint) if to is None else Path(to).expanduser()
    return _download(spec, checkpoint, folder, force=force)


@checked
def verify(name: str, directory: Path | str | None = None) -> pd.DataFrame:
    """Compare the files of a model with the published sizes and checksums.

    Parameters
    ----------
    name
        `'model'` or `'model.checkpoint'`.
    directory
        Folder with the files. `None` means the cache.

    Returns
    -------
    One row per file, indexed by role: `path`, `bytes` and `status`, which is `'ok'`, `'size ok'` or `'unchecked'` (the
    publisher gives no checksum, or not even a size), `'missing'`, or what is wrong.

    Raises
    ------
    ValueError
        There is no such model, or it has no files.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.models.verify("geneformer.v2-104m")  # doctest: +SKIP
    """
    import pandas as pd

    spec, checkpoint = _with_files(name)
    folder = cache_folder(spec, checkpoint) if directory is None else Path(directory).expanduser()
    rows = {}
    found = _search(checkpoint, folder)
    for role, file in checkpoint.files.items():
        if role in found:
            good = "ok" if file.expected.hashed else "size ok" if file.bytes else "unchecked"
            status = file.expected.problem(found[role]) or good
        else:
            status = "missing (optional)" if file.optional else "missing"
        rows[role] = {
            "path": str(found.get(role, folder / file.path)),
            "bytes": found[role].stat().st_size if role in found else 0,
            "status": status,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("role")


def _with_files(name: str) -> tuple[ModelSpec, Checkpoint]:
    spec, checkpoint = find(name)
    if checkpoint is None:
        msg = f"Model {name!r} is fitted to the data and has no files to download."
        raise ValueError(msg)
    if not checkpoint.files:
        msg = f"The files of {name!r} are not registered: nothing is known to compare them with. models.load fetches them."
        raise ValueError(msg)
    return spec, checkpoint


def _download(spec: ModelSpec, checkpoint: Checkpoint, folder: Path, *, force: bool = False) -> dict[str, Path]:
    found = _present(spec, checkpoint, folder)
    if force:
        found = {role: path for role, path in found.items() if not checkpoint.files[role].urls}
    wanted = {role: file for role, file in checkpoint.files.items() if role not in found}
    by_hand = [file for file in wanted.values() if not file.urls and not file.optional]
    if by_hand:
        raise FileNotFoundError(missing_message(spec, checkpoint, by_hand, folder))
    name = f"{spec.name}.{checkpoint.tag}"
    if wanted and not settings.offline:
        _tell_terms(name, checkpoint)
    for role, file in wanted.items():
        if file.urls:
            manual = file.manual or f"get {file.name} from {checkpoint.publisher} and put it at {folder / file.path}"
            found[role] = fetch(folder / file.path, file.urls, file.expected, manual=manual, force=force)
    return found


def _tell_terms(name: str, checkpoint: Checkpoint) -> None:
    """Warn once about weights that may not be used commercially, or whose terms do not say."""
    if checkpoint.commercial or name in _warned:
        return
    _warned.add(name)
    if checkpoint.commercial is None:
        found = f"The publisher does not state whether the weights of {name} may be used commercially"
    else:
        found = f"The weights of {name} may not be used commercially"
    warn(f"{found} (license: {checkpoint.license}). Read the terms of {checkpoint.publisher} before you go on.")


def _present(spec: ModelSpec, checkpoint: Checkpoint, folder: Path) -> dict[str, Path]:
    """Files in `folder`; one of wrong size or content counts as missing, so that it is fetched again.

    In the cache, gaps are filled with the same file of another checkpoint: vocabularies and token tables are shared and
    large.
    """
    found = _search(checkpoint, folder)
    found = {role: path for role, path in found.items() if not _problem(checkpoint.files[role], path)}
    if folder == cache_folder(spec, checkpoint):
        for role, file in checkpoint.files.items():
            for other in spec.checkpoints.values():
                path = cache_folder(spec, other) / file.path
                shared = role not in found and other is not checkpoint and file in other.files.values()
                if shared and path.is_file() and not _problem(file, path):
                    found[role] = path
    return found


def _problem(file: RemoteFile, path: Path) -> str | None:
    return file.expected.or_remembered(path).problem_once(path)


def _search(checkpoint: Checkpoint, folder: Path) -> dict[str, Path]:
    paths = {role: _find(folder, file) for role, file in checkpoint.files.items()}
    return {role: path for role, path in paths.items() if path is not None}


def _find(folder: Path, file: RemoteFile) -> Path | None:
    """Find a file by its published path, by its name, beside the folder, or as the only match anywhere below it.

    Looking beside the folder finds the files that several checkpoints share when the folder of one of them is given.
    """
    twin = _TWINS.get(file.name, file.name)
    places = [folder / file.path, (folder / file.path).with_name(twin), folder / file.name, folder / twin]
    places += [folder.parent / file.path] if "/" in file.path else []
    for candidate in places:
        if candidate.exists():
            return candidate
    if not folder.is_dir():
        return None
    below = sorted(folder.rglob(file.name))
    suffix = [path for path in below if path.as_posix().endswith(file.path)]
    return suffix[0] if len(suffix) == 1 else below[0] if len(below) == 1 else None


def missing_message(spec: ModelSpec, checkpoint: Checkpoint, missing: list[RemoteFile], folder: Path) -> str:
    """Say what is missing, who publishes it, and how to get it by hand."""
    lines = [f"{spec.name}.{checkpoint.tag}: {len(missing)} file(s) not found in {folder}:"]
    for file in missing:
        n = file.bytes or file.about_bytes
        size = f" ({'' if file.bytes else 'about '}{n:,} bytes)" if n else ""
        how = file.manual or (f"download {file.urls[0]}" if file.urls else f"ask {checkpoint.publisher}")
        there = _find(folder, file)
        wrong = f" is there, but {_problem(file, there)}" if there is not None else ""
        lines.append(f"  {file.path}{size}{wrong}: {how}")
    lines.append(
        f"Published by {checkpoint.publisher}; license of the weights: {checkpoint.license}. Run "
        f"sc_drugresp.models.download('{spec.name}.{checkpoint.tag}') with a network, or put the files there by hand, "
        "or name their folder with `checkpoint=`."
    )
    return "\n".join(lines)
