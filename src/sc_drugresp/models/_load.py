"""`models.load`: from a name to a model that is ready to embed."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.hashing import sha256
from .._core.imports import require
from ._hub import locate
from ._registry import find

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from ._embedder import Embedder
    from ._spec import ModelSpec


def model_class(spec: ModelSpec) -> Any:
    """Import the class that a row of the registry names, as `.module:Class` of this package or `package.module:Class`."""
    if spec.extra is not None:
        require(spec.extra, extra=spec.extra)
    module, _, name = spec.target.partition(":")
    return getattr(import_module(module, __package__), name)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a model does not have, before any file is opened.

    Raises
    ------
    TypeError
        There is no such option.
    """
    if not options:
        return
    cls = model_class(find(name)[0])
    config = getattr(cls, "Config", None)
    known = {field.name for field in fields(config)} if config else set(inspect.signature(cls).parameters)
    unknown = sorted(options.keys() - known)
    if unknown:
        msg = f"Unknown option {unknown[0]!r}. Options of {name!r}: {sorted(known)}."
        raise TypeError(msg)


def load(name: str, checkpoint: str | PathLike[str] | None = None, **options: Any) -> Embedder:
    """Load a model by name, ready to embed.

    Foundation models are :class:`torch.nn.Module` objects with `tokenize`, `embed_tokens`, `hidden` and `pool`, so
    that the tokenizer and the network can also be used separately.

    Parameters
    ----------
    name
        `'model'` or `'model.checkpoint'`, in any case, see :func:`~sc_drugresp.models.table`.
    checkpoint
        Folder with the published files, or the weights file in it. `None` takes them from the cache and downloads
        what is missing.
    options
        Fields of the model's `Config` to change: pooling, length limit, and so on.

    Returns
    -------
    A :class:`~sc_drugresp.models.CellEncoder` in evaluation mode with frozen parameters, or a baseline. Its attributes
    `aligns_genes`, `needs_fit`, `tunable`, `set_based` and `expects` say what it can do.

    Raises
    ------
    ValueError
        There is no such model, or the files do not fit together.
    FileNotFoundError
        Files are missing and cannot be downloaded.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> sdr.models.load("pca", n_comps=20).dim
    20
    """
    spec, row = find(name)
    cls = model_class(spec)
    if row is None:
        return cls(**options)
    files = locate(spec, row, None if checkpoint is None else Path(checkpoint))
    encoder = cls.from_files(files, **{**row.options, **options})
    encoder.name = f"{spec.name}.{row.tag}"
    encoder.checkpoint = {"name": encoder.name, "file": files["weights"].name, "sha256": sha256(files["weights"])}
    return encoder
