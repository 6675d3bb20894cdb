"""Tune an encoder: split samples, warm-start the head, train with Lightning, keep the best epoch."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from sklearn.model_selection import StratifiedGroupKFold

from .._settings import settings
from ..models._heads import Head, LinearHead, MLPHead
from .adapters import adapter_state, inject, lora_config, merge_adapters
from .heads import HeadKind, fit_head
from .module import ResponseModule, TorchHead, held_out_scores, quiet_lightning

if TYPE_CHECKING:
    from .._data import Tokens
    from ..models._encoder import CellEncoder
    from .options import FineTuning, Mode


@dataclass
class Tuned:
    """What tuning gives: head, adapter or weights, history, and held-out logits of the tuned and the frozen model."""

    head: Head
    adapter: dict[str, Any] | None
    weights: dict[str, torch.Tensor] | None
    history: list[dict[str, float]]
    held_out: np.ndarray
    logits: np.ndarray
    frozen_logits: np.ndarray
    trainable: int
    total: int
    adapted: list[str]


def split_samples(
    y: np.ndarray, groups: np.ndarray, *, validation: float, seed: int, force: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and rows held out, samples whole, both classes on both sides.

    Raises
    ------
    ValueError
        A class has a single sample, and `force` is false.
    """
    per_class = [len(np.unique(groups[y == label])) for label in (1, 0)]
    if min(per_class) < 2:
        if not force:
            msg = (
                f"Tuning needs at least 2 samples of each class (one to learn from, one to stop by), found "
                f"{per_class[0]} sensitive and {per_class[1]} resistant. Use mode='frozen', or force=True to train "
                "without held-out samples."
            )
            raise ValueError(msg)
        return np.arange(len(y)), np.empty(0, dtype=np.int64)
    n_splits = min(max(2, round(1 / validation)), *per_class)
    splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=seed)
    for train, test in splitter.split(np.empty((len(y), 1)), y, groups):
        if len(np.unique(y[train])) == 2 and len(np.unique(y[test])) == 2:
            return train, test
    return _one_sample_each(y, groups, seed)


def _one_sample_each(y: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out one sample of each class: what is left when no fold has both classes."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.unique(groups[y == label])) for label in (1, 0)]
    held = np.isin(groups, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_overlap(train_groups: np.ndarray, held_out_groups: np.ndarray) -> None:
    """Refuse samples that stand on both sides.

    Raises
    ------
    ValueError
        A sample is in training and in validation.
    """
    both = np.intersect1d(train_groups, held_out_groups)
    if len(both):
        msg = f"{len(both)} samples are in training and in validation, for example {both[0]!r}; keep samples whole."
        raise ValueError(msg)


def finetune(
    encoder: CellEncoder,
    tokens: Tokens,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    mode: Mode,
    head: HeadKind,
    options: FineTuning,
    seed: int,
    train: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
    start: Head | None = None,
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
    train, held_out
        Rows to learn from and to stop by; chosen here if not given.
    start
        Head to start from instead of one fitted to the frozen embedding.

    Raises
    ------
    ValueError
        Too few samples, samples on both sides, or a head that has no gradient.
    """
    if head == "hist_gradient_boosting":
        msg = "Tuning needs a head with gradients: 'logistic' or 'mlp', found 'hist_gradient_boosting'."
        raise ValueError(msg)
    if train is None or held_out is None:
        train, held_out = split_samples(y, groups, validation=options.validation, seed=seed, force=options.force)
    check_overlap(groups[train], groups[held_out])
    frozen = embed_by_sample(encoder, tokens, groups)
    usable = np.isfinite(frozen).all(axis=1)
    train, held_out = train[usable[train]], held_out[usable[held_out]]
    warm = start if start is not None else fit_head(head, frozen[train], y[train], groups[train], rng=seed)
    assert isinstance(warm, LinearHead | MLPHead)
    frozen_logits = warm.logit(frozen[held_out])
    torch_head = TorchHead(warm)
    cuda = torch.device(_accelerator()).type == "cuda"
    devices = [torch.cuda.current_device()] if cuda else []
    was = encoder.gradient_checkpointing
    encoder.gradient_checkpointing = (
        cuda if options.gradient_checkpointing == "auto" else options.gradient_checkpointing
    )
    with torch.random.fork_rng(devices=devices), quiet_lightning():
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())  # initial adapters
        adapted: list[str] = []
        config = lora_config(encoder, rank=options.rank, alpha=options.alpha, dropout=options.dropout)
        if mode == "lora":
            adapted = inject(encoder, config)
        else:
            _unfreeze(encoder)
        module = ResponseModule(
            encoder,
            torch_head,
            tokens,
            y,
            groups,
            train=train,
            held_out=held_out,
            options=options,
            seed=seed,
            fingerprint=_fingerprint(encoder, tokens, y, groups, mode, options, seed),
        )
        trainable = sum(parameter.numel() for parameter in module.trained().values())
        _fit(module, options, cuda=cuda)
    module.restore_best()
    encoder.gradient_checkpointing = was
    encoder.eval()
    state, weights = _result(encoder, config, mode, options)
    tuned_head = torch_head.to_head()
    logits = tuned_head.logit(embed_by_sample(encoder, tokens.take(held_out), groups[held_out]))
    total = sum(parameter.numel() for parameter in encoder.parameters())
    return Tuned(tuned_head, state, weights, module.history, held_out, logits, frozen_logits, trainable, total, adapted)


def _result(
    encoder: CellEncoder, config: Any, mode: Mode, options: FineTuning
) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor] | None]:
    """The adapter, or the weights that changed."""
    if mode == "lora" and not options.merge:
        return adapter_state(encoder, config), None
    changed = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if mode == "lora":
        changed = {f"{name.rpartition('.lora_A')[0]}.weight" for name in changed if ".lora_A" in name}
        merge_adapters(encoder)
    state = encoder.state_dict()
    return None, {name: state[name].detach().cpu().contiguous().clone() for name in sorted(changed)}


def _unfreeze(encoder: CellEncoder) -> None:
    """Train every parameter but the tables that the model declares frozen."""
    frozen = tuple(getattr(encoder, "frozen", ()))
    for name, parameter in list(encoder.named_parameters()):
        if parameter.is_floating_point() and not name.startswith(frozen or ("\0",)):
            parent, _, child = name.rpartition(".")
            # Loaded tensors may be memory-mapped and read-only: training needs its own copy.
            fresh = torch.nn.Parameter(parameter.detach().clone(), requires_grad=True)
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


def _fit(module: ResponseModule, options: FineTuning, *, cuda: bool) -> None:
    callbacks: list[pl.Callback] = []
    if len(module.held_out):
        callbacks.append(EarlyStopping(monitor="held_out_loss", patience=options.patience, check_finite=True))
    resume: Path | None = None
    if options.checkpoint_dir is not None:
        folder = Path(options.checkpoint_dir)
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder, filename="epoch", save_top_k=0, save_last=True, save_on_train_epoch_end=True
            )
        )
        resume = folder / "last.ckpt" if (folder / "last.ckpt").is_file() else None
    if settings.progress:
        callbacks.append(TQDMProgressBar(leave=False))
    trainer = pl.Trainer(
        accelerator=_accelerator(),
        devices=1,
        precision=_precision(options.precision, cuda=cuda),  # type: ignore[arg-type]
        max_epochs=options.epochs,
        accumulate_grad_batches=options.accumulate,
        callbacks=callbacks,
        enable_checkpointing=options.checkpoint_dir is not None,
        enable_progress_bar=settings.progress,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        limit_val_batches=None if len(module.held_out) else 0,
        use_distributed_sampler=False,
        inference_mode=False,
    )
    trainer.fit(module, ckpt_path=resume, weights_only=True)


def _accelerator() -> str:
    kind = settings.device.split(":")[0]
    if kind != "auto":
        return kind
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _precision(precision: str, *, cuda: bool) -> str:
    if precision != "auto":
        return precision
    return "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"


def _fingerprint(
    encoder: CellEncoder, tokens: Tokens, y: np.ndarray, groups: np.ndarray, mode: str, options: FineTuning, seed: int
) -> str:
    """Hash of everything that decides a run, except for how long it goes on."""
    settings_ = {
        name: str(value) for name, value in asdict(options).items() if name not in {"checkpoint_dir", "epochs"}
    }
    digest = hashlib.sha256(repr((encoder.checkpoint.get("sha256"), mode, sorted(settings_.items()), seed)).encode())
    for array in (tokens.indptr, tokens.ids, y, np.asarray(groups, dtype=str)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def compare(tuned: Tuned, y: np.ndarray, groups: np.ndarray) -> list[dict[str, Any]]:
    """Held-out loss and AUROC of the tuned model beside the frozen one on the same split."""
    rows = []
    if len(tuned.held_out) == 0:
        return rows
    y, groups = y[tuned.held_out], groups[tuned.held_out]
    for name, logits in (("frozen", tuned.frozen_logits), ("tuned", tuned.logits)):
        loss, auroc = held_out_scores(logits, y, groups)
        rows.append({"model": name, "held_out_loss": loss, "held_out_auroc": auroc})
    return rows
