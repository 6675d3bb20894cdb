"""`models.load`: from a name to a model that is ready to embed."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.arguments import check_named, checked
from .._core.imports import require
from ._files import check_file
from ._hub import locate
from ._identity import Source, check_identity, other_owner, weights_digest
from ._language_files import language_files
from ._registry import find, full_name, is_language_model
from ._weights import check_archive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from ._embedder import Embedder
    from ._spec import ModelSpec


def model_class(spec: ModelSpec) -> Any:
    """Import the class that a row of the registry names, as `.module:Class` of this package or `package.module:Class`."""
    if spec.extra is not None:
        require(spec.requires or spec.extra, extra=spec.extra)
    module, _, name = spec.target.partition(":")
    return getattr(import_module(module, __package__), name)


def check_options(name: str, options: Mapping[str, Any], checkpoint: object = None) -> None:
    """Refuse options that a model does not have, and a checkpoint of a model without any, before any file is opened.

    Raises
    ------
    TypeError
        There is no such option, a value has another type, or the model has no checkpoints.
    ValueError
        A value is out of range or not among the choices.
    """
    spec, row = find(name)
    if spec.saved and checkpoint is None:
        msg = f"`checkpoint` must name the folder in which the {spec.name} was saved; nothing of it is published."
        raise ValueError(msg)
    if checkpoint is not None and row is None and not spec.saved:
        msg = f"`checkpoint` names files, but {spec.name!r} has none; leave it out."
        raise TypeError(msg)
    if not options:
        return
    cls = model_class(spec)
    config = getattr(cls, "Config", None)
    known = {field.name for field in fields(config)} | {"verify"} if config else set(inspect.signature(cls).parameters)
    known = set() if spec.saved else known
    unknown = sorted(options.keys() - known)
    if unknown:
        msg = f"Unknown option {unknown[0]!r}. Options of {name!r}: {sorted(known)}."
        raise TypeError(msg)
    check_named(load, options)
    if config is None:
        check_named(cls.__init__, options)
    else:
        config.check_options(options)


@checked
def load(name: str, checkpoint: str | PathLike[str] | None = None, *, verify: bool = True, **options: Any) -> Embedder:
    """Load a model by name, ready to embed.

    Foundation models are :class:`torch.nn.Module` objects with `tokenize`, `embed_tokens`, `hidden` and `pool`, so
    that the tokenizer and the network can also be used separately.

    Parameters
    ----------
    name
        `'model'` or `'model.checkpoint'`, in any case, see :func:`~sc_drugresp.models.table`; or
        `'llm:<folder or repository>'` for any language model in Hugging Face's format.
    checkpoint
        Folder with the published files, or the weights file in it. `None` takes them from the cache and downloads
        what is missing. A `'student'` needs the folder in which it was saved.
    verify
        Whether files are compared with what is published about them: hashes, sizes, number of layers, and the checksums
        inside torch files. `False` takes files that look damaged or of another checkpoint, such as those of a network
        that you trained further. Nothing in a file is ever executed, verified or not.
    options
        Fields of the model's `Config` to change: pooling, length limit, and so on.

    Returns
    -------
    A :class:`~sc_drugresp.models.CellEncoder` in evaluation mode with frozen parameters, a baseline, or a
    :class:`~sc_drugresp.models.Student`. Its attributes
    `aligns_genes`, `needs_fit`, `tunable`, `set_based` and `expects` say what it can do. Its `checkpoint` says what was
    loaded: `name`, `file`, `sha256`, `license`, and `source`, which is `'published'` (all known hashes agree), `'unverified'` (the
    sizes agree, no hash is known, or `verify=False`) or `'local'` (of no registered checkpoint).

    Raises
    ------
    ValueError
        There is no such model; the files are damaged, do not fit together, or are those of another checkpoint.
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
    check_options(name, options, checkpoint)
    if spec.saved:
        return cls.load(checkpoint)
    if row is None:
        return cls(**options)
    name_of_row = full_name(spec, row)
    registered = not is_language_model(name)
    found_files = locate(spec, row, _path(checkpoint)) if registered else language_files(name, _path(checkpoint))
    files = {role: check_file(path) for role, path in found_files.items()}
    encoder = cls.from_files(files, **{**row.options, **options})
    source: Source = "local" if checkpoint is not None or not registered else "unverified"
    if verify and registered:
        found = {field: getattr(encoder.config, field, None) for field in row.sizes if field not in options}
        if other := other_owner(spec, row, files, found):
            owner = f"{spec.name}.{other[0].tag}"
            if "." not in str(name):
                return load(owner, checkpoint, **options)
            msg = (
                f"{files['weights']} belongs to {owner}, found by {other[1]}, but {name_of_row} was asked for. Load "
                f"{owner!r}, or give the folder of {name_of_row} with `checkpoint=`. Pass verify=False to load it all the same."
            )
            raise ValueError(msg)
        known = getattr(encoder, "depth_stated", True) or "layers" in options
        source = check_identity(name_of_row, row, files, found, given=checkpoint is not None, depth_known=known)
        for role, path in files.items():
            if source != "published" or row.files[role].sha256 is None:
                check_archive(path)
    encoder.name, encoder.files = name_of_row, files
    encoder.checkpoint = {
        "name": name_of_row,
        "file": files["weights"].name,
        "sha256": weights_digest(files),
        "source": source,
        "license": row.license,
    }
    return encoder


def stand_in(name: str, options: Mapping[str, Any]) -> Any:
    """A network of the published size with random weights and made-up genes, for estimates without the files."""
    spec, row = find(name)
    cls = model_class(spec)
    known = {field.name for field in fields(cls.Config)}
    given = {**(row.sizes if row else {}), **(row.options if row else {}), **options}
    model = cls.random(cls.Config(**{field: value for field, value in given.items() if field in known}))
    model.name = f"{spec.name}.{row.tag}" if row else spec.name
    return model


def _path(checkpoint: str | PathLike[str] | None) -> Path | None:
    return None if checkpoint is None else Path(checkpoint)
