"""Translate published names of parameters: renaming, splitting, and the layouts that several models share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TORCH_ENCODER = {
    r"^(layers\.\d+)\.self_attn\.(?:_impl\.)?(?:Wqkv\.|in_proj_)": r"\1.attn.qkv.",
    r"^(layers\.\d+)\.self_attn\.([qkv])_proj\.": r"\1.attn.\2.",
    r"^(layers\.\d+)\.self_attn\.(?:_impl\.)?out_proj\.": r"\1.attn.o.",
    r"^(layers\.\d+)\.linear1\.": r"\1.up.",
    r"^(layers\.\d+)\.linear2\.": r"\1.down.",
    r"^(layers\.\d+)\.norm1\.": r"\1.attn_norm.",
    r"^(layers\.\d+)\.norm2\.": r"\1.ffn_norm.",
}
"""Layers of `torch.nn.TransformerEncoder`, with and without flash-attention, once they are called `layers.<i>`."""

BERT = {
    r"^bert\.": "",
    r"\.gamma$": ".weight",  # names of early transformers releases
    r"\.beta$": ".bias",
    r"^embeddings\.word_embeddings\.": "word.",
    r"^embeddings\.position_embeddings\.": "position.",
    r"^embeddings\.token_type_embeddings\.": "token_type.",
    r"^embeddings\.LayerNorm\.": "norm.",
    r"^encoder\.layer\.": "layers.",
    r"\.attention\.self\.query\.": ".attn.q.",
    r"\.attention\.self\.key\.": ".attn.k.",
    r"\.attention\.self\.value\.": ".attn.v.",
    r"\.attention\.output\.dense\.": ".attn.o.",
    r"\.attention\.output\.LayerNorm\.": ".attn_norm.",
    r"\.intermediate\.dense\.": ".up.",
    r"\.output\.dense\.": ".down.",
    r"\.output\.LayerNorm\.": ".ffn_norm.",
}
"""Hugging Face's BERT."""
BERT_DROPPED = (
    r"cls\.predictions\.|cls\.seq_relationship\.",
    r"(bert\.)?pooler\.",
    r"classifier\.",
    r"(bert\.)?embeddings\.(position_ids|token_type_ids)$",
)
"""Its masked-LM head, pooler, classifier and index buffers."""


def rename(state: Mapping[str, Any], rules: Mapping[str, str], *, drop: Iterable[str] = ()) -> dict[str, Any]:
    """Rename parameters by regular expressions applied in order; names that match `drop` are left out.

    Raises
    ------
    ValueError
        Two parameters would have the same name.
    """
    dropped = [re.compile(pattern) for pattern in drop]
    out = {}
    for name, tensor in state.items():
        if any(pattern.match(name) for pattern in dropped):
            continue
        new = name
        for pattern, replacement in rules.items():
            new = re.sub(pattern, replacement, new)
        if new in out:
            msg = f"tensor {name} and another one both stand for {new}; expected one of them"
            raise ValueError(msg)
        out[new] = tensor
    return out


def split_rows(state: dict[str, Any], pattern: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Split fused tensors by rows: `pattern` has one group `(fused)` that each of `names` replaces (q, k, v).

    Raises
    ------
    ValueError
        The rows of a tensor cannot be split into equal parts.
    """
    regex = re.compile(pattern)
    out = {}
    for name, tensor in state.items():
        match = regex.search(name)
        if match is None:
            out[name] = tensor
            continue
        size, rest = divmod(tensor.shape[0] if tensor.ndim else 0, len(names))
        if rest or not size:
            msg = (
                f"tensor {name} has the shape {tuple(tensor.shape)}; expected rows for {' and '.join(names)}, "
                f"{len(names)} times the same number"
            )
            raise ValueError(msg)
        for i, part in enumerate(names):
            out[name[: match.start(1)] + part + name[match.end(1) :]] = tensor[i * size : (i + 1) * size]
    return out
