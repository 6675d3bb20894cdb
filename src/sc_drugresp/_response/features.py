"""What a head learns from, and the one place that answers which features a call means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._core.keys import EmbeddingKeys
from .._core.log import logger
from .._data.counts import read_counts
from .._embed.coverage import check_coverage
from .._embed.slots import embedding_info, latest_embedding, read_rep
from ..models._registry import find
from .recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from .._data.counts import CountSource

CACHE_BYTES = 2**28
IN_MEMORY_CELLS = 50_000
"""Labeled cells that are kept in memory because every fold reads them again; more are read from the object each time."""
NOT_OPTIONS = frozenset({"model", "genes", "rng", "layer", "group_key"})
"""What `.uns` notes about an embedding beside the options of its model."""


class Features(Protocol):
    """One way to describe the labeled cells. `split` must not let the test cells influence what is fitted."""

    @property
    def name(self) -> str:
        """Name of the row in tables."""
        ...

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of the training and of the test cells, float arrays of shape `(cells, dim)`."""
        ...


@dataclass(frozen=True)
class FixedFeatures:
    """An embedding that owes nothing to these cells, or was computed before.

    Parameters
    ----------
    name
        Name of the row in tables.
    values
        One row for each cell of the object, shape `(n_obs, dim)`.
    rows
        The labeled cells among them; `None` for all.
    description
        How other cells are embedded in the same way, see :class:`~sc_drugresp.models.ResponseModel`.
    """

    name: str
    values: np.ndarray
    rows: np.ndarray | None = None
    description: dict[str, Any] = field(default_factory=dict)
    embedder = None

    def labeled(self) -> np.ndarray:
        """Features of the labeled cells."""
        return self.values if self.rows is None else self.values[self.rows]

    def everything(self) -> np.ndarray:
        """Features of all cells."""
        return self.values

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the embedding."""
        x = self.labeled()
        return x[train], x[test]


class FittedFeatures:
    """An embedder that learns from cells (`needs_fit`): fitted anew to the training cells of every fold.

    Parameters
    ----------
    name
        Name of the row in tables.
    embedder
        The embedder, not fitted yet.
    labeled
        Reader of the labeled cells, in the order of the folds' rows.
    source
        Reader of all cells of the object; `None` if only the labeled ones matter.
    description
        As in :class:`FixedFeatures`.
    rng
        Seed of the fits.
    """

    def __init__(
        self,
        name: str,
        embedder: Any,
        labeled: CountSource,
        *,
        source: CountSource | None = None,
        description: dict[str, Any] | None = None,
        rng: int = 0,
    ) -> None:
        self.name, self.embedder, self.rng = name, embedder, rng
        self.description = description or {}
        self._labeled, self._source = labeled, source
        self._refit: Callable[[np.ndarray], np.ndarray] | None = None
        self._cache: dict[bytes, np.ndarray] = {}
        self._fitted = False

    def split(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit to the training cells, embed both parts; fits to the same cells are done once."""
        mask = np.zeros(self._labeled.n_obs, dtype=bool)
        mask[train] = True
        key = np.packbits(mask).tobytes()
        if key not in self._cache:
            if self._refit is None:
                self._refit = self.embedder.refits(self._labeled, rng=self.rng)
            x = self._refit(np.flatnonzero(mask))
            if sum(kept.nbytes for kept in self._cache.values()) + x.nbytes > CACHE_BYTES:
                self._cache.clear()
            self._cache[key] = x
        return self._cache[key][train], self._cache[key][test]

    def labeled(self) -> np.ndarray:
        """Features of the labeled cells after a fit to all of them."""
        self._fit()
        return self.embedder.transform(self._labeled)

    def everything(self) -> np.ndarray:
        """Features of all cells after a fit to the labeled ones."""
        self._fit()
        return self.embedder.transform(self._source)

    def _fit(self) -> None:
        if not self._fitted:
            self.embedder.fit(self._labeled, rng=self.rng)
            self._fitted = True


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
        self._labeled: dict[str, CountSource] = {}

    def everything(self, expects: Any = "any", layer: str | None = None) -> CountSource:
        """A reader of all cells."""
        return read_counts(self.adata, layer=layer or self.layer, expect=expects)

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
    spec, row = find(recipe.model)
    embedder = recipe.load()
    key = name or EmbeddingKeys.of(spec.slot if row is None else recipe.model).obsm
    if embedder.needs_fit:
        description = {"kind": "baseline", "use_rep": key, "model": spec.name, "options": dict(recipe.options)}
        return FittedFeatures(
            name or recipe.name,
            embedder,
            matrices.labeled(spec.expects, layer),
            source=matrices.everything(spec.expects, layer),
            description=description,
            rng=rng,
        )
    source = embedder.read(matrices.adata, layer or matrices.layer)
    check_coverage(source, embedder)
    values = embedder.embed(source, rng=rng, groups=sets if spec.set_based else None)
    params = {"model": recipe.model, "genes": "auto", "rng": rng, **recipe.options}
    description = describe("encoder", key, {"params": params, "checkpoint": embedder.checkpoint})
    return FixedFeatures(name or recipe.name, values, matrices.rows, description)


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
        recipe = Recipe("pca") if use_rep is None else None
    if use_rep is not None:
        return slot_features(adata, use_rep, matrices, rng=rng)
    assert recipe is not None
    return model_features(recipe, matrices, sets=sets, rng=rng)


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
