"""`ResponseModel`: what training returns and prediction takes, on disk as JSON and safetensors."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import RESISTANT, SENSITIVE
from .heads import Head, head_arrays, head_from_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from ..models.baselines import FittedEmbedder

FORMAT = 1
MODEL, HEAD, EMBEDDER, WEIGHTS = "model.json", "head.safetensors", "embedder.safetensors", "encoder.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"


@dataclass
class ResponseModel:
    """A trained predictor of drug response: how cells are embedded, the head, and how far to trust it.

    Made by :func:`~sc_drugresp.tl.train_response`, used by :func:`~sc_drugresp.tl.predict_response`. Its score is
    P(sensitive).

    Parameters
    ----------
    head
        Maps an embedding to the log-odds of `sensitive`.
    representation
        How cells are embedded: `kind` (`slot`, `baseline` or `encoder`), `use_rep`, and the model with its options
        and checkpoint hash.
    info
        Provenance: labels, groups, numbers of cells and samples, held-out metrics, data hash, package versions.
    states
        Fitted calibration, conformal thresholds and out-of-distribution reference by name, as JSON values and arrays.
    embedder
        The fitted baseline (PCA, HVG, scVI) where the representation is one.
    adapter
        LoRA tensors by name (peft's format) and their configuration under `config`.
    weights
        All encoder tensors after full fine-tuning.
    history
        One row per epoch: loss and held-out scores.
    """

    head: Head
    representation: dict[str, Any]
    info: dict[str, Any]
    states: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = field(default_factory=dict)
    embedder: FittedEmbedder | None = None
    adapter: dict[str, Any] | None = None
    weights: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def dim(self) -> int:
        """Width of the embedding that the head reads."""
        return int(self.info["dim"])

    def logit(self, embedding: np.ndarray) -> np.ndarray:
        """Log-odds of `sensitive` before calibration.

        Parameters
        ----------
        embedding
            Array of shape `(n_cells, dim)`.

        Returns
        -------
        Array of shape `(n_cells,)`, float64; NaN where the embedding is NaN.

        Raises
        ------
        ValueError
            The embedding has another width than the one the head was trained on.
        """
        if embedding.ndim != 2 or embedding.shape[1] != self.dim:
            msg = (
                f"This model reads embeddings of width {self.dim} ({self.representation.get('use_rep')}), found shape "
                f"{embedding.shape}. Embed the cells with the same model and options."
            )
            raise ValueError(msg)
        return self.head.logit(embedding)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder of JSON and safetensors files; nothing is pickled.

        The folder appears complete or not at all.

        Parameters
        ----------
        path
            Folder to make.
        overwrite
            Replace a folder that holds a model.

        Raises
        ------
        FileExistsError
            The path exists and `overwrite` is false, or it is not a saved model.
        """
        from safetensors.numpy import save_file

        path = Path(path)
        if path.exists() and not (overwrite and (path / MODEL).is_file()):
            msg = f"{path} exists. Choose another path" + ("." if overwrite else ", or pass overwrite=True.")
            raise FileExistsError(msg)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            meta = {
                "format": FORMAT,
                "head": self.head.kind,
                "score": f"P({SENSITIVE})",
                "classes": [RESISTANT, SENSITIVE],
                "representation": self.representation,
                "info": self.info,
                "history": self.history,
                "states": {name: values for name, (values, _) in self.states.items()},
            }
            save_file(head_arrays(self.head), draft / HEAD)
            for name, (_, arrays) in self.states.items():
                if arrays:
                    save_file(
                        {key: np.ascontiguousarray(array) for key, array in arrays.items()},
                        draft / f"{name}.safetensors",
                    )
            if self.embedder is not None:
                meta["embedder"], arrays = self.embedder.state()
                save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, draft / EMBEDDER)
            self._save_tensors(draft)
            (draft / MODEL).write_text(json.dumps(meta, indent=2, allow_nan=False, default=_plain), encoding="utf-8")
            if path.exists():
                shutil.rmtree(path)
            draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _save_tensors(self, folder: Path) -> None:
        if self.adapter is None and self.weights is None:
            return
        from safetensors.torch import save_file

        if self.adapter is not None:
            (folder / ADAPTER_CONFIG).write_text(json.dumps(self.adapter["config"], indent=2), encoding="utf-8")
            save_file(self.adapter["tensors"], folder / ADAPTER, metadata={"format": "pt"})
        if self.weights is not None:
            save_file(self.weights, folder / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ResponseModel:
        """Read a folder written by :meth:`save`.

        Parameters
        ----------
        path
            Folder of the model.

        Returns
        -------
        The model. Nothing in the folder is executed; frozen models are read without torch.

        Raises
        ------
        FileNotFoundError
            The folder is not a saved model or is incomplete.
        ValueError
            A file is damaged or was written by a later version.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(path)
        if not (path / MODEL).is_file():
            msg = f"{path} holds no saved response model ({MODEL} is missing)."
            raise FileNotFoundError(msg)
        try:
            meta = json.loads((path / MODEL).read_text(encoding="utf-8"))
            if meta["format"] > FORMAT:
                msg = f"{path} was written in format {meta['format']}, this version reads up to {FORMAT}. Update sc-drugresp."
                raise ValueError(msg)
            head = head_from_arrays(meta["head"], load_file(path / HEAD))
            states = {}
            for name, values in meta["states"].items():
                file = path / f"{name}.safetensors"
                states[name] = (values, load_file(file) if file.is_file() else {})
            embedder = _load_embedder(meta, path)
        except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
            msg = f"The model in {path} is damaged or incomplete ({type(error).__name__}: {error})."
            raise ValueError(msg) from error
        model = cls(head, meta["representation"], meta["info"], states, embedder, history=meta["history"])
        model._load_tensors(path)
        return model

    def _load_tensors(self, path: Path) -> None:
        if (path / ADAPTER).is_file():
            from safetensors.torch import load_file

            config = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            self.adapter = {"config": config, "tensors": load_file(path / ADAPTER)}
        if (path / WEIGHTS).is_file():
            from safetensors.torch import load_file

            self.weights = load_file(path / WEIGHTS)

    def __repr__(self) -> str:
        info = self.info
        return (
            f"ResponseModel({self.representation.get('model') or self.representation.get('use_rep')!r}, "
            f"mode={info.get('mode')!r}, head={self.head.kind!r}, {info.get('n_cells')} cells of "
            f"{info.get('n_groups')} samples)"
        )


def _load_embedder(meta: Mapping[str, Any], path: Path) -> FittedEmbedder | None:
    if "embedder" not in meta:
        return None
    from safetensors.numpy import load_file

    from ..models._load import model_class
    from ..models._registry import find

    spec, _ = find(meta["representation"]["model"])
    return model_class(spec).from_state(meta["embedder"], load_file(path / EMBEDDER))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    msg = f"{type(value).__name__} cannot be written as JSON."
    raise TypeError(msg)
