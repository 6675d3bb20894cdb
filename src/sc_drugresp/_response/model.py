"""`ResponseModel`: what training returns and prediction takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from ..models._fitted import FittedEmbedder
    from .heads import Head
    from .trust import Trust


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
        Provenance: labels, groups, numbers of cells and samples, held-out metrics, data hash, package versions, and under
        `verdict` what the design of the training data allows to conclude.
    trust
        Calibration, calls and the cells that are known, fitted on held-out samples.
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
    trust: Trust
    embedder: FittedEmbedder | None = None
    adapter: dict[str, Any] | None = None
    weights: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def dim(self) -> int:
        """Width of the embedding that the head reads."""
        return int(self.info["dim"])

    @property
    def tuned(self) -> bool:
        """Whether the encoder was trained, not the head alone."""
        return self.adapter is not None or self.weights is not None

    @checked
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
        self._check_width(embedding)
        return self.head.logit(embedding)

    @checked
    def sample_logit(self, embedding: np.ndarray, groups: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score of each sample as a whole, before calibration.

        Parameters
        ----------
        embedding
            Array of shape `(n_cells, dim)`.
        groups
            Sample of each cell.

        Returns
        -------
        Names of the samples, sorted, and the score of each; NaN for one without an embedding.

        Raises
        ------
        ValueError
            The embedding has another width than the one the head was trained on, or there is no sample for each cell.
        """
        self._check_width(embedding)
        names = np.asarray(groups)
        if names.shape != (len(embedding),):
            msg = f"`groups` must name the sample of each of {len(embedding)} cells, found the shape {names.shape}."
            raise ValueError(msg)
        return self.head.sample_logit(embedding, names)

    def _check_width(self, embedding: np.ndarray) -> None:
        if embedding.ndim != 2 or embedding.shape[1] != self.dim:
            msg = (
                f"This model reads embeddings of width {self.dim} ({self.representation.get('use_rep')}), found shape "
                f"{embedding.shape}. Embed the cells with the same model and options."
            )
            raise ValueError(msg)

    @checked
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder of JSON and safetensors files; nothing is pickled.

        The folder appears complete or not at all. An old model stays until the new one is on the disk; the two are
        exchanged in one step, and files of others in the folder stay there.

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
        ValueError
            `info` or `representation` holds NaN or infinity.
        """
        from .storage import write_model

        write_model(vars(self), path, overwrite=overwrite)

    @classmethod
    @checked
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
        from .storage import read_model

        return cls(**read_model(path))

    def __repr__(self) -> str:
        info = self.info
        return (
            f"ResponseModel({self.representation.get('model') or self.representation.get('use_rep')!r}, "
            f"mode={info.get('mode')!r}, head={self.head.kind!r}, {info.get('n_cells')} cells of "
            f"{info.get('n_groups')} samples)"
        )
