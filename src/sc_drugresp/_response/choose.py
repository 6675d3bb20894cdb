"""The one place that answers which features a call means: a slot, a model that was named, the latest embedding, PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import EmbeddingKeys
from .._core.log import logger
from .._data.counts import read_counts
from .._embed.coverage import check_coverage
from .._embed.slots import embedding_info, latest_embedding, read_rep, slot_base
from ..models._load import model_class
from ..models._registry import find
from .features import FittedFeatures, FixedFeatures
from .recipe import Recipe

if TYPE_CHECKING:
    from anndata import AnnData

    from .._data.counts import CountSource

IN_MEMORY_CELLS = 50_000
"""Labeled cells that are kept in memory because every fold reads them again; more are read from the object each time."""
RANDOM = ".random"
"""What the name of a row ends in whose network has random weights."""
NOT_OPTIONS = frozenset({"model", "genes", "rng", "layer", "group_key", "engine", "precision"})
"""What `.uns` notes about an embedding beside the options of its model."""


class Matrices:
    """Readers of one object: all of its cells, and the labeled ones, each matrix found and loaded once.

    Parameters
    ----------
    adata
        The object.
    rows
        Rows of the labeled cells.
    layer
        Matrix to read, as the user named it.
    """

    def __init__(self, adata: AnnData, rows: np.ndarray, layer: str | None = None) -> None:
        self.adata, self.rows, self.layer = adata, rows, layer
        self._everything: dict[str, CountSource] = {}
        self._labeled: dict[str, CountSource] = {}

    def everything(self, expects: Any = "any", layer: str | None = None) -> CountSource:
        """A reader of all cells."""
        source = read_counts(self.adata, layer=layer or self.layer, expect=expects)
        return self._everything.setdefault(source.origin, source)

    def labeled(self, expects: Any = "any", layer: str | None = None) -> CountSource:
        """A reader of the labeled cells."""
        source = self.everything(expects, layer)
        if source.origin not in self._labeled:
            few = len(self.rows) <= IN_MEMORY_CELLS
            self._labeled[source.origin] = source.to_memory(self.rows) if few else source.take(self.rows)
        return self._labeled[source.origin]

    def depth(self) -> np.ndarray | None:
        """Counts of each cell, shape `(n_obs,)`; `None` where no raw counts are found."""
        try:
            return self.everything("counts").totals()
        except ValueError:
            return None


def slot_features(adata: AnnData, use_rep: str, matrices: Matrices, *, rng: int) -> FixedFeatures | FittedFeatures:
    """Features from a slot of `.obsm`; what `tl.embed` fitted to these cells is fitted anew.

    Raises
    ------
    KeyError
        There is no such slot.
    ValueError
        It is no matrix.
    """
    info = embedding_info(adata, use_rep)
    values = read_rep(adata, use_rep)
    if info.get("fitted_on_these_cells"):
        params = dict(info["params"])
        recipe = Recipe(str(params["model"]), options=options_in(params))
        return model_features(recipe, matrices, rng=rng, name=use_rep, layer=_layer(str(params["layer"])))
    return FixedFeatures(use_rep, values, matrices.rows, describe("encoder" if info else "slot", use_rep, info))


def model_features(
    recipe: Recipe,
    matrices: Matrices,
    *,
    rng: int,
    sets: np.ndarray | None = None,
    name: str | None = None,
    layer: str | None = None,
) -> FixedFeatures | FittedFeatures:
    """Features by a model that was named: fitted inside the folds if it learns from cells, else computed once.

    Parameters
    ----------
    recipe
        The model, not tuned.
    matrices
        The cells.
    rng
        Seed.
    sets
        Set of each cell, for set-based models.
    name
        Slot to be recorded, instead of the one that `tl.embed` would write.
    layer
        Matrix to read, instead of that of `matrices`.
    """
    spec, _ = find(recipe.model)
    embedder = recipe.load()
    key = name or EmbeddingKeys.of(slot_base(recipe.model, embedder)).obsm
    if embedder.needs_fit:
        description = {"kind": "baseline", "use_rep": key, "model": spec.name, "options": dict(recipe.options)}
        return FittedFeatures(
            name or recipe.name,
            embedder,
            matrices.labeled(spec.expects, layer),
            source=matrices.everything(spec.expects, layer),
            rows=matrices.rows,
            description=description,
            rng=rng,
        )
    source = embedder.read(matrices.adata, layer or matrices.layer)
    check_coverage(source, embedder)
    how = {"engine": recipe.engine, "precision": recipe.precision}
    values = embedder.embed(source, rng=rng, groups=sets if spec.set_based else None, **how)
    params = {"model": recipe.model, "genes": "auto", "rng": rng, **how, **recipe.options}
    description = describe("encoder", key, {"params": params, "checkpoint": embedder.checkpoint})
    return FixedFeatures(name or recipe.name, values, matrices.rows, description)


def random_features(recipe: Recipe, matrices: Matrices, *, rng: int, sets: np.ndarray | None) -> FixedFeatures | None:
    """Features by the same network with weights drawn at random; `None` for a model that is no pretrained network."""
    spec, _ = find(recipe.model)
    if model_class(spec).needs_fit:
        return None
    encoder = recipe.load().redraw(rng)
    source = encoder.read(matrices.adata, matrices.layer)
    how = {"engine": recipe.engine, "precision": recipe.precision}
    values = encoder.embed(source, rng=rng, groups=sets if spec.set_based else None, **how)
    return FixedFeatures(f"{recipe.name}{RANDOM}", values, matrices.rows)


def choose_features(
    adata: AnnData,
    matrices: Matrices,
    *,
    use_rep: str | None,
    recipe: Recipe | None,
    sets: np.ndarray | None = None,
    rng: int = 0,
) -> FixedFeatures | FittedFeatures:
    """The features of a call: a slot, else a model, else the latest embedding, else PCA."""
    if use_rep is None and recipe is None:
        use_rep = latest_embedding(adata)
        logger.info("using the embedding %r", use_rep or "pca")
    if use_rep is not None:
        return slot_features(adata, use_rep, matrices, rng=rng)
    return model_features(recipe or Recipe("pca"), matrices, sets=sets, rng=rng)


def describe(kind: str, use_rep: str, info: dict[str, Any]) -> dict[str, Any]:
    """How cells get the features of a slot, as a saved model keeps it."""
    if kind == "slot":
        return {"kind": kind, "use_rep": use_rep, "model": "", "options": {}}
    params = dict(info.get("params", {}))
    return {
        "kind": kind,
        "use_rep": use_rep,
        "model": str(params.get("model", "")),
        "options": options_in(params),
        "genes": str(params.get("genes", "auto")),
        "rng": int(params.get("rng", 0)),
        "group_key": str(params.get("group_key", "")),
        "engine": str(params.get("engine", "torch")),
        "precision": str(params.get("precision", "float32")),
        "checkpoint": {name: _plain(value) for name, value in dict(info.get("checkpoint", {})).items()},
    }


def options_in(params: dict[str, Any]) -> dict[str, Any]:
    """Options of the model among the parameters that `tl.embed` noted."""
    return {name: _plain(value) for name, value in params.items() if name not in NOT_OPTIONS}


def _plain(value: Any) -> Any:
    """A value as it was before it went through a file."""
    return value.item() if isinstance(value, np.generic) else value.tolist() if isinstance(value, np.ndarray) else value


def _layer(origin: str) -> str:
    """Turn `layers['counts']`, as `.uns` records it, back into a `layer` argument."""
    name = origin.removesuffix(" (counts recovered)")
    return name[len("layers['") : -len("']")] if name.startswith("layers[") else name
