"""Tune an encoder: split samples, warm-start the head, train with Lightning, keep the best epoch."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..._core.device import resolve_device
from ..fit import fit_head
from .adapters import adapter_state, inject, inject_saved, load_weights, lora_config, merge_adapters
from .held_out import split_samples
from .module import ResponseModule, TorchHead, held_out_scores
from .processes import started
from .trainer import fit

if TYPE_CHECKING:
    from ..._data import Tokens
    from ...models._encoder import CellEncoder
    from ..heads import Head, HeadChoice
    from ..model import ResponseModel
    from .options import FineTuning


@dataclass
class Tuned:
    """What tuning gives: head, adapter or weights, history, and logits of the held-out cells.

    `references` are logits of models that were not tuned: `'start'` (the model that was continued, as it was) and
    `'frozen'` (a head fitted to the same training cells on the embedding as it was before).
    """

    head: Head
    adapter: dict[str, Any] | None
    weights: dict[str, torch.Tensor] | None
    history: list[dict[str, float]]
    held_out: np.ndarray
    logits: np.ndarray
    references: dict[str, np.ndarray]
    trainable: int
    total: int
    adapted: list[str]


def finetune(
    encoder: CellEncoder,
    tokens: Tokens,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    mode: str,
    head: HeadChoice,
    options: FineTuning,
    seed: int,
    start: ResponseModel | None = None,
) -> Tuned:
    """Tune `encoder` in place.

    Parameters
    ----------
    encoder
        A loaded model. Its base weights are unchanged with `mode='lora'`.
    tokens, y, groups
        Tokens, label (1 sensitive, 0 resistant) and sample of each labeled cell.
    mode, head, options, seed
        As in :func:`~sc_drugresp.tl.train_response`.
    start
        Model to continue: its weights, its adapter (which goes on being trained with `mode='lora'`) and its head.

    Raises
    ------
    ValueError
        Too few samples, or the processes asked for were not started or cannot share the work.
    RuntimeError
        The loss is no finite number.
    """
    if mode == "full" and any(not parameter.is_floating_point() for parameter in encoder.parameters()):
        msg = "mode='full' trains every weight, but those of this encoder are quantized. Use mode='lora', or quantize='no'."
        raise ValueError(msg)
    processes = started(options)
    if processes is not None:
        processes.check(options, set_based=encoder.set_based)
    train, held_out = split_samples(y, groups, validation=options.validation, seed=seed, force=options.force)
    encoder.to(resolve_device())
    config, inherited = _prepare(encoder, mode, options, start, seed)
    before = embed_by_sample(encoder, tokens, groups)
    usable = np.isfinite(before).all(axis=1)
    train, held_out = train[usable[train]], held_out[usable[held_out]]
    frozen = fit_head(head, before[train], y[train], groups[train], rng=seed)
    beginnings = {"frozen": frozen} if start is None else {"start": start.head, "frozen": frozen}
    references = {name: known.logit(before[held_out]) for name, known in beginnings.items()}
    if mode == "full":
        unfreeze(encoder)
    module = ResponseModule(
        encoder,
        TorchHead(frozen if start is None else start.head),
        tokens,
        y,
        groups,
        train=train,
        held_out=held_out,
        options=options,
        seed=seed,
        fingerprint=_fingerprint(encoder, tokens, y, groups, (mode, head, seed), options, start),
    )
    adapted = [name for name, layer in encoder.named_modules() if hasattr(layer, "lora_A")]
    trainable = sum(parameter.numel() for parameter in module.trained().values())
    total = sum(parameter.numel() for parameter in encoder.parameters())
    was, wanted = encoder.gradient_checkpointing, options.gradient_checkpointing
    encoder.gradient_checkpointing = resolve_device().type == "cuda" if wanted == "auto" else wanted
    try:
        fit(module, options, processes)
    finally:
        encoder.gradient_checkpointing = was
        encoder.eval()
    module.restore_best()
    encoder.to(resolve_device())  # Lightning leaves it on the CPU
    adapter, weights = _result(encoder, config, options, inherited)
    encoder.requires_grad_(requires_grad=False)
    tuned = module.head.to_head()
    logits = tuned.logit(embed_by_sample(encoder, tokens.take(held_out), groups[held_out]))
    return Tuned(tuned, adapter, weights, module.history, held_out, logits, references, trainable, total, adapted)


def _prepare(
    encoder: CellEncoder, mode: str, options: FineTuning, start: ResponseModel | None, seed: int
) -> tuple[Any, set[str]]:
    """Bring the encoder to where training begins: configuration of the adapter, and tensors that differ from the base."""
    config, inherited = None, set()
    if start is not None and start.weights is not None:
        load_weights(encoder, start.weights)
        inherited = set(start.weights)
    if start is not None and start.adapter is not None:
        config = inject_saved(encoder, start.adapter)
    if mode == "full":
        merge_adapters(encoder)
        return None, inherited
    if config is None:
        config = lora_config(encoder, rank=options.rank, alpha=options.alpha, dropout=options.dropout)
        inject(encoder, config, seed=seed)
    return config, inherited


def _result(
    encoder: CellEncoder, config: Any, options: FineTuning, inherited: set[str]
) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor] | None]:
    """The adapter, and the weights that differ from the published ones."""
    adapter, changed = None, inherited
    learned = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if config is None:
        changed = inherited | learned
    elif options.merge:
        changed = inherited | {f"{name.rpartition('.lora_A')[0]}.weight" for name in learned if ".lora_A" in name}
        merge_adapters(encoder)
    else:
        adapter = adapter_state(encoder, config)
    # Under their names without adapters: `x.base_layer.weight` is `x.weight` of the base.
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in encoder.state_dict().items()}
    weights = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(changed)}
    return adapter, weights or None


def unfreeze(encoder: CellEncoder) -> None:
    """Train every parameter. Tables that stay as published (gene2vec, proteins) are buffers or lie outside."""
    for name, parameter in list(encoder.named_parameters()):
        if parameter.is_floating_point():
            parent, _, child = name.rpartition(".")
            # Loaded tensors may be memory-mapped and read-only: training needs its own copy. In halves, small steps vanish.
            fresh = torch.nn.Parameter(parameter.detach().clone().float(), requires_grad=True)
            setattr(encoder.get_submodule(parent), child, fresh)


def embed_by_sample(encoder: CellEncoder, tokens: Tokens, groups: np.ndarray) -> np.ndarray:
    """Embedding in evaluation mode; a set-based model sees one sample at a time."""
    if not encoder.set_based:
        return encoder.embed_tokens(tokens)
    out = np.empty((len(tokens), encoder.dim), dtype=np.float32)
    for group in np.unique(groups):
        cells = np.flatnonzero(groups == group)
        out[cells] = encoder.embed_tokens(tokens.take(cells))
    return out


def _fingerprint(
    encoder: CellEncoder,
    tokens: Tokens,
    y: np.ndarray,
    groups: np.ndarray,
    choices: tuple[Any, ...],
    options: FineTuning,
    start: ResponseModel | None,
) -> str:
    """Hash of everything that decides a run, except for how long it goes on."""
    free = {"checkpoint_dir", "epochs", "devices", "num_nodes", "strategy"}
    chosen = {name: str(value) for name, value in asdict(options).items() if name not in free}
    origin = None if start is None else start.info.get("data_hash")
    what = (encoder.checkpoint.get("sha256"), repr(encoder.config), choices, sorted(chosen.items()), origin)
    digest = hashlib.sha256(repr(what).encode())
    for array in (tokens.indptr, tokens.ids, tokens.values, y, np.asarray(groups, dtype=str)):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def compare(tuned: Tuned, y: np.ndarray, groups: np.ndarray) -> list[dict[str, Any]]:
    """Held-out loss and AUROC of the tuned model, beside models that were not tuned on the same split."""
    if not len(tuned.held_out):
        return []
    y, groups = y[tuned.held_out], groups[tuned.held_out]
    scores = {name: held_out_scores(x, y, groups) for name, x in (tuned.references | {"tuned": tuned.logits}).items()}
    return [{"model": name, "held_out_loss": loss, "held_out_auroc": auroc} for name, (loss, auroc) in scores.items()]
