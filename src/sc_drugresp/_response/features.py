"""How cells become the vectors that a head reads: a slot, a fitted baseline, or a pretrained encoder."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from .._core.keys import EmbeddingKeys
from .._core.log import logger, warn
from .._data.counts import read_counts
from .._data.obs import set_codes
from .._embed.slots import embedding_info, latest_embedding, read_rep
from ..models._registry import find
from .crossfit import fixed

if TYPE_CHECKING:
    from anndata import AnnData

    from .._data.counts import CountSource
    from .model import ResponseModel
    from .types import Embed

LOW_COVERAGE = 0.5
_CACHE_BYTES = 64_000_000


@dataclass
class Representation:
    """Embeddings for training: of all cells, and refitted for any split where they are learned from the data."""

    description: dict[str, Any]
    source: Any
    embedder: Any
    values: np.ndarray | None
    rng: int

    def all(self, rows: np.ndarray) -> np.ndarray:
        """Embedding of every cell; what is learned is learned from `rows` and kept in `embedder`."""
        if self.values is not None:
            return self.values
        mask = np.zeros(self.source.n_obs, dtype=bool)
        mask[rows] = True
        return self.embedder.fit(self.source, rng=self.rng, mask_obs=mask).transform(self.source)

    def depth(self, rows: np.ndarray) -> np.ndarray | None:
        """Counts of the cells `rows`; `None` where raw counts were not read."""
        return None if self.source is None else depths(self.source, rows)

    def split(self, rows: np.ndarray) -> Embed:
        """`embed(train, test)` over positions within `rows`; fits of the same training rows are reused."""
        if self.values is not None:
            return fixed(self.values[rows])
        cache: dict[bytes, np.ndarray] = {}

        def embed(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mask = np.zeros(self.source.n_obs, dtype=bool)
            mask[rows[train]] = True
            key = np.packbits(mask).tobytes()
            if key not in cache:
                fitted = copy(self.embedder).fit(self.source, rng=self.rng, mask_obs=mask)
                if sum(kept.nbytes for kept in cache.values()) > _CACHE_BYTES:
                    cache.clear()
                cache[key] = fitted.transform(self.source, rows)
            return cache[key][train], cache[key][test]

        return embed


def representation(
    adata: AnnData,
    *,
    use_rep: str | None,
    model: str | None,
    checkpoint: Any = None,
    layer: str | None = None,
    groups: np.ndarray | None = None,
    rng: int = 0,
    options: dict[str, Any] | None = None,
) -> Representation:
    """Choose the representation: `use_rep`, else `model`, else the latest embedding, else PCA.

    A baseline that wrote `use_rep` into these data is fitted anew, so that it can be refitted in every fold and be
    used on other data.

    Raises
    ------
    ValueError
        Both `use_rep` and `model` are given.
    """
    if use_rep is not None and model is not None:
        msg = f"Give either `use_rep` or `model`, not both (found {use_rep!r} and {model!r})."
        raise ValueError(msg)
    options = dict(options or {})
    if use_rep is None and model is None:
        use_rep = latest_embedding(adata)
        logger.info("using the embedding %r", use_rep or "pca")
        model = "pca" if use_rep is None else None
    if use_rep is not None:
        info = embedding_info(adata, use_rep)
        if not info.get("fitted_on_these_cells"):
            values = read_rep(adata, use_rep)
            description = _describe("encoder" if info else "slot", use_rep, info, options)
            return Representation(description, None, None, values, rng)
        params = dict(info["params"])
        model = str(params.pop("model"))
        layer = layer or str(params.pop("layer"))
        known = {"genes", "rng", "group_key", "layer"}
        options = {name: value for name, value in params.items() if name not in known}
    spec, _ = find(str(model))
    source = read_counts(adata, layer=_layer(layer), expect=spec.expects)
    embedder = models.load(str(model), checkpoint=checkpoint, **options)
    key = use_rep or EmbeddingKeys.of(spec.slot if spec.kind == "baseline" else str(model)).obsm
    if embedder.needs_fit:
        description = {"kind": "baseline", "use_rep": key, "model": spec.name, "options": options}
        return Representation(description, source, embedder, None, rng)
    values = embedder.embed(source, rng=rng, groups=groups)
    info = {"params": {"model": str(model), "genes": "auto", "rng": rng}, "checkpoint": embedder.checkpoint}
    return Representation(_describe("encoder", key, info, options), source, embedder, values, rng)


def _describe(kind: str, use_rep: str, info: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    params = dict(info.get("params", {}))
    if kind == "slot":
        return {"kind": kind, "use_rep": use_rep, "model": "", "options": {}}
    known = {"model", "genes", "rng", "layer", "group_key"}
    return {
        "kind": kind,
        "use_rep": use_rep,
        "model": str(params.get("model", "")),
        "options": {name: _plain(value) for name, value in params.items() if name not in known} | options,
        "genes": str(params.get("genes", "auto")),
        "rng": int(params.get("rng", 0)),
        "group_key": str(params.get("group_key", "")),
        "checkpoint": {name: _plain(value) for name, value in dict(info.get("checkpoint", {})).items()},
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist() if isinstance(value, np.ndarray) else value


def _layer(origin: str | None) -> str | None:
    """Turn `layers['counts']`, as `.uns` records it, back into a `layer` argument."""
    if origin is not None and origin.startswith("layers["):
        return origin[len("layers['") : -len("']")]
    return origin


def depths(source: CountSource, rows: np.ndarray | None = None) -> np.ndarray | None:
    """Counts of each cell, shape `(n_cells,)`; `None` if the matrix does not hold counts."""
    if source.kind != "counts":
        return None
    sums = [np.asarray(block.sum(axis=1, dtype=np.float64)).ravel() for _, block in source.blocks(rows=rows)]
    return np.concatenate(sums)


def warn_low_coverage(source: CountSource, encoder: Any, genes: Any = "auto") -> None:
    """Say before the expensive part that most counts lie in genes the model does not know.

    Judged from rows spread over the data. Some models leave out whole classes of genes on purpose (mitochondrial,
    ribosomal), so this is no error.
    """
    aligned = source.align(encoder.vocab, genes)
    rows = np.unique(np.linspace(0, aligned.n_obs - 1, min(aligned.n_obs, 256)).astype(np.int64))
    for _ in aligned.blocks(rows=rows):
        pass
    if aligned.coverage < LOW_COVERAGE:
        warn(
            f"Only {aligned.coverage:.0%} of the counts lie in genes that {encoder.name!r} knows "
            f"({int(aligned.alignment.matched.sum())} of {source.n_vars} genes). Check species and gene names with "
            "sc_drugresp.pp.harmonize_genes(adata)."
        )


def embed_for(model: ResponseModel, adata: AnnData, *, checkpoint: Any = None, layer: str | None = None) -> np.ndarray:
    """Embed the cells of `adata` the way `model` was trained.

    Raises
    ------
    KeyError
        The model reads a slot that these data do not have and that cannot be computed.
    ValueError
        The slot was written by another checkpoint or with other options.
    """
    how = model.representation
    if how["kind"] == "baseline":
        assert model.embedder is not None
        source = read_counts(adata, layer=layer, expect=find(how["model"])[0].expects)
        return model.embedder.transform(source)
    tuned = model.adapter is not None or model.weights is not None
    if how["use_rep"] in adata.obsm and not tuned:
        _check_same_embedding(adata, how)
        return read_rep(adata, how["use_rep"])
    if how["kind"] == "slot":
        return read_rep(adata, how["use_rep"])
    encoder = models.load(how["model"], checkpoint=checkpoint, **how["options"])
    check_same_checkpoint(encoder.checkpoint, how)
    if tuned:
        from .tune.adapters import apply_tuned

        apply_tuned(encoder, model)
    groups = set_codes(adata.obs, how.get("group_key") or None)
    return encoder.embed(encoder.read(adata, layer), genes=how["genes"], rng=how["rng"], groups=groups)


def _check_same_embedding(adata: AnnData, how: dict[str, Any]) -> None:
    info = embedding_info(adata, how["use_rep"])
    if how["kind"] == "encoder" and info:
        now = _describe("encoder", how["use_rep"], info, {})
        for name in ("model", "options", "genes"):
            if now[name] != how[name]:
                msg = (
                    f".obsm[{how['use_rep']!r}] was made with {name} = {now[name]!r}, but the model was trained with "
                    f"{how[name]!r}. Embed again with the same settings, or delete the slot."
                )
                raise ValueError(msg)
        check_same_checkpoint(now["checkpoint"], how)


def check_same_checkpoint(found: dict[str, Any], how: dict[str, Any]) -> None:
    """Refuse weights other than those that a model was trained on.

    Raises
    ------
    ValueError
        The hashes differ.
    """
    expected = how.get("checkpoint", {}).get("sha256")
    if expected and found.get("sha256") not in (None, expected):
        msg = (
            f"The model was trained on another checkpoint of {how['model']!r}: SHA-256 {expected[:12]}..., found "
            f"{str(found.get('sha256'))[:12]}... . Give the right one with `checkpoint=`."
        )
        raise ValueError(msg)
