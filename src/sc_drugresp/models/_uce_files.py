"""What the files of a UCE checkpoint say about its sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._files import read_json
from ._weights import read_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_SIZES = {"width": "d_model", "layers": "nlayers", "n_tokens": "n_tokens", "dim": "output_dim", "ffn_dim": "d_hid"}
_TENSORS = {
    "token_dim": ("encoder.0.weight", 1),
    "width": ("encoder.0.weight", 0),
    "ffn_dim": ("transformer_encoder.layers.0.linear1.weight", 0),
    "decoder_dim": ("decoder.0.0.weight", 0),
    "dim": ("decoder.3.weight", 0),
    "positions": ("pos_encoder.pe", 0),
}


def read_sizes(state: Mapping[str, Tensor], table: Tensor, weights: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Read the sizes from the shapes of the tensors, and the `config.json` where there is one.

    Raises
    ------
    ValueError
        A tensor is missing, or the table or the configuration belongs to another checkpoint.
    """
    sizes = read_shapes(state, _TENSORS, model="UCE", source=weights)
    if table.shape[1] != sizes["token_dim"]:
        msg = f"The token table of {weights} has {table.shape[1]} columns, the network expects {sizes['token_dim']}."
        raise ValueError(msg)
    sizes["n_tokens"] = table.shape[0]
    return sizes, _published(sizes, weights)


def _published(sizes: Mapping[str, int], weights: Path) -> dict[str, Any]:
    for path in (weights.with_name("config.json"), weights.parent.with_name("config.json")):
        published = read_json(path) if path.exists() else {}
        if "nhead" not in published:
            continue  # none, or another program's
        for ours, theirs in _SIZES.items():
            if published.get(theirs, sizes[ours]) != sizes[ours]:
                msg = f"{path} says {theirs}={published[theirs]}, but {weights} has {sizes[ours]}. Take both from one checkpoint."
                raise ValueError(msg)
        return published
    return {}
