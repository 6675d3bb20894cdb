"""Cells of another object, embedded the way a response model was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._data.counts import read_counts
from .._data.obs import set_codes
from .._embed.slots import embedding_info, read_rep
from ..models._registry import find
from .choose import describe
from .recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from .model import ResponseModel


def embed_like(
    model: ResponseModel, adata: AnnData, obs: pd.DataFrame, *, checkpoint: Any = None, layer: str | None = None
) -> np.ndarray:
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
        if model.embedder is None:
            msg = f"This model was trained on {how['model']!r} and lacks the fitted embedder; save and load it as a whole."
            raise ValueError(msg)
        return model.embedder.transform(read_counts(adata, layer=layer, expect=find(how["model"])[0].expects))
    if how["kind"] == "slot" or (how["use_rep"] in adata.obsm and not model.tuned):
        values = read_rep(adata, how["use_rep"])
        _check_same_embedding(adata, how)
        return values
    encoder = Recipe(how["model"], checkpoint=checkpoint, options=how["options"]).load()
    check_same_checkpoint(encoder.checkpoint, how)
    if model.tuned:
        from .tune.adapters import apply_tuned

        apply_tuned(encoder, model)
    groups = set_codes(obs, how.get("group_key") or None)
    given = {"engine": how.get("engine", "torch"), "precision": how.get("precision", "float32")}
    return encoder.embed(encoder.read(adata, layer), genes=how["genes"], rng=how["rng"], groups=groups, **given)


def _check_same_embedding(adata: AnnData, how: dict[str, Any]) -> None:
    info = embedding_info(adata, how["use_rep"])
    if how["kind"] != "encoder" or not info:
        return
    now = describe("encoder", how["use_rep"], info)
    for name in ("model", "options", "genes", "precision"):  # the engine does not matter: it computes the same numbers
        expected = how.get(name, "float32")
        if now[name] != expected:
            msg = (
                f".obsm[{how['use_rep']!r}] was made with {name} = {now[name]!r}, but the model was trained with "
                f"{expected!r}. Embed again with the same settings, or delete the slot."
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
