"""Files of a language model that is not registered, in a folder or a repository of Hugging Face, by role. No torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .._core.settings import settings
from ._files import read_json
from ._registry import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

WANTED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "tokenizer.model")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")


def language_files(name: str, checkpoint: Path | None = None) -> dict[str, Path]:
    """Files by role of the model that `llm:<folder or repository>` names: `config`, `tokenizer`, `weights`, `weights_2`, ...

    Parameters
    ----------
    name
        The name.
    checkpoint
        Folder to read instead, or a file in it. `None` reads the folder of this name or, where there is none, the repository:
        from the cache of Hugging Face, or from its server unless `settings.offline` forbids it.

    Raises
    ------
    FileNotFoundError
        There is no such folder, a file is missing, or the repository cannot be had.
    ValueError
        There are no weights as safetensors.
    """
    place = place_of(name)
    folder = Path(checkpoint or place).expanduser()
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        if checkpoint is not None or not _REPOSITORY.fullmatch(place):
            msg = f"There is no folder {folder}. Name the folder that holds config.json and model.safetensors, or a repository as 'llm:owner/name'."
            raise FileNotFoundError(msg)
        folder = _snapshot(place)
    tokenizer = next((folder / file for file in _TOKENIZERS if (folder / file).is_file()), folder / _TOKENIZERS[0])
    files = {"config": folder / "config.json", "tokenizer": tokenizer}
    for path in files.values():
        if not path.is_file():
            msg = (
                f"{path} is missing; expected a model as Hugging Face's save_pretrained writes it, with its tokenizer."
            )
            raise FileNotFoundError(msg)
    for number, path in enumerate(_weights(folder), start=1):
        files["weights" if number == 1 else f"weights_{number}"] = path
    return files


def _weights(folder: Path) -> Sequence[Path]:
    single, index = folder / "model.safetensors", folder / _INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        table = read_json(index).get("weight_map")
        names = sorted(set(table.values())) if isinstance(table, dict) else []
        if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
            msg = f"{index} lists no files of weights beside it. Download it again."
            raise ValueError(msg)
        if lost := [name for name in names if not (folder / name).is_file()]:
            msg = f"{folder} lacks {len(lost)} of its {len(names)} files of weights: {', '.join(lost[:4])}. Download them."
            raise FileNotFoundError(msg)
        return [folder / name for name in names]
    found = sorted(
        path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack"}
    )
    if found:
        msg = (
            f"{folder} holds its weights as {found[0]}; expected model.safetensors. Other formats are not read: some can run "
            "code when they are opened. Convert the model once: `AutoModel.from_pretrained(...).save_pretrained(folder)`."
        )
        raise ValueError(msg)
    msg = f"{folder} holds no weights; expected model.safetensors, or {_INDEX} and the files that it lists."
    raise FileNotFoundError(msg)


def _snapshot(repository: str) -> Path:
    """The files of a repository in the cache of Hugging Face; what is missing is downloaded unless we are offline."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=list(WANTED), local_files_only=settings.offline
            )
        )
    except (OSError, ValueError) as error:
        why = (
            "settings.offline forbids the network and it is not in the cache"
            if settings.offline
            else str(error).splitlines()[0]
        )
        msg = (
            f"{repository!r} is no folder here, and as a repository of Hugging Face it could not be had: {why}. For a gated "
            "model accept its license on its page and log in with `hf auth login`, or name a folder that holds the model."
        )
        raise FileNotFoundError(msg) from error
