"""Who teaches: a model that embeds the cells, or an embedding that is there already, and under whose terms."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._embed.coverage import check_coverage
from .._embed.slots import embedding_info, read_rep
from .._response.recipe import Recipe
from ..models._registry import canonical, find

if TYPE_CHECKING:
    from anndata import AnnData

    from .._data.vocab import GeneVocab
    from ..models._encoder import CellEncoder
    from ..models._fitted import FittedEmbedder

COMMERCIAL = {True: "allowed", False: "not allowed", None: "not stated"}


@dataclass(frozen=True)
class Teacher:
    """What is to be learned.

    Parameters
    ----------
    identity
        Name, hash and source of the checkpoint, terms of the weights; plain values.
    embedder
        The model; `None` for an embedding that is there.
    values
        The embedding that is there, one row per cell of the object.
    """

    identity: dict[str, Any]
    embedder: Any = None
    values: np.ndarray | None = None

    @property
    def vocab(self) -> GeneVocab | None:
        """The genes that the model knows; `None` where that is not known, or every gene counts."""
        return self.embedder.vocab if getattr(self.embedder, "aligns_genes", False) else None

    def embed(
        self, adata: AnnData, rows: np.ndarray, sets: np.ndarray, learned: np.ndarray, *, layer: str | None, seed: int
    ) -> np.ndarray:
        """Embedding of `rows`, shape `(len(rows), dim)`, float32; a baseline is fitted to those that `learned` marks.

        Parameters
        ----------
        adata
            The cells.
        rows
            Rows of the cells to embed.
        sets
            Code of the sample of each of these cells, for set-based models.
        learned
            Mask of `rows`: the cells that may be learned from.
        layer, seed
            Matrix to read, and seed of models that sample.
        """
        if self.values is not None:
            return self.values[rows].astype(np.float32)
        source = self.embedder.read(adata, layer)
        if self.embedder.needs_fit:
            some = source.take(rows)
            return copy(self.embedder).fit(some, rng=seed, mask_obs=learned).transform(some)
        check_coverage(source, self.embedder)
        return self.embedder.embed(source.take(rows), rng=seed, groups=sets if self.embedder.set_based else None)


def find_teacher(teacher: str | Recipe | CellEncoder | FittedEmbedder, adata: AnnData, use_rep: str | None) -> Teacher:
    """The teacher that a call means; weights are loaded only if it has to embed.

    Raises
    ------
    ValueError
        There is no such model, it is tuned or a student, or the embedding in `use_rep` is another model's.
    KeyError
        There is no embedding `use_rep`.
    """
    if isinstance(teacher, str) and use_rep is None:
        try:
            teacher = Recipe(teacher)
        except ValueError as error:
            msg = f"`teacher`: {error}"
            raise ValueError(msg) from None
    if isinstance(teacher, Recipe) and teacher.tuned:
        msg = f"`teacher` must not be trained further, found mode={teacher.mode!r}; its weights would be those of no file."
        raise ValueError(msg)
    if use_rep is not None:
        return _there_already(teacher, adata, use_rep)
    options = dict(teacher.options) if isinstance(teacher, Recipe) else {}
    embedder: Any = teacher.load() if isinstance(teacher, Recipe) else teacher
    if not (embedder.needs_fit or embedder.tunable):
        msg = f"`teacher` is itself a student, {embedder.name!r}; distill its own teacher instead."
        raise ValueError(msg)
    if isinstance(teacher, Recipe) is False and embedder.needs_fit:
        options = embedder.settings()
    return Teacher(identify(embedder.name, getattr(embedder, "checkpoint", {}), options), embedder)


def _there_already(teacher: Any, adata: AnnData, use_rep: str) -> Teacher:
    """An embedding in `.obsm`, if it is that of the teacher."""
    values, note = read_rep(adata, use_rep), embedding_info(adata, use_rep)
    name = teacher.model if isinstance(teacher, Recipe) else teacher if isinstance(teacher, str) else teacher.name
    if not note:
        if not name.strip():
            msg = "`teacher` must name the model that made the embedding in `use_rep`, found ''."
            raise ValueError(msg)
        return Teacher(identify(name, {"source": "stated"}, {}), values=values)
    if note.get("fitted_on_these_cells"):
        msg = (
            f".obsm[{use_rep!r}] (`use_rep`) was fitted to these cells, those to be held out included. Leave `use_rep` out: "
            f"the teacher {note['params']['model']!r} is then fitted to the samples that the student learns from."
        )
        raise ValueError(msg)
    made = str(note["checkpoint"].get("name") or note["params"]["model"])
    if not made.startswith("student(") and _same_model(name, made):
        options = {key: value for key, value in note["params"].items() if key not in {"model", "layer", "group_key"}}
        return Teacher(identify(made, note["checkpoint"], options), values=values)
    msg = f".obsm[{use_rep!r}] (`use_rep`) was made by {made!r}, but `teacher` is {name!r}."
    raise ValueError(msg)


def _same_model(asked: str, made: str) -> bool:
    """Whether a name with or without a checkpoint is that of the model that made an embedding."""
    try:
        asked = canonical(asked)
    except ValueError:
        return False
    return asked in {made, made.partition(".")[0]}


def identify(name: str, checkpoint: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Name, checkpoint and terms of a teacher, in plain values."""
    try:
        spec, row = find(name)
    except ValueError:  # of no model that we know
        terms = {"license": "not known", "commercial": COMMERCIAL[None], "publisher": "not known"}
    else:
        terms = {"license": "no weights of others", "commercial": COMMERCIAL[True], "publisher": "your own cells"}
        if row is not None:
            terms = {"license": row.license, "commercial": COMMERCIAL[row.commercial], "publisher": row.publisher}
            name = f"{spec.name}.{row.tag}"
    told = {"sha256": str(checkpoint.get("sha256", "")), "source": str(checkpoint.get("source", "fitted"))}
    return {"name": name, **told, **terms, "options": options}
