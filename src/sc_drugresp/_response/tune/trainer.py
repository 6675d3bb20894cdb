"""Lightning's Trainer as we use it: no loggers, resumable, quiet, and harmless to the user's session."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from ..._core.device import resolve_device
from ..._core.progress import visible
from ...models._weights import check_archive, read_state
from .processes import averaging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .module import ResponseModule
    from .options import FineTuning
    from .processes import Processes

LAST = "last.ckpt"


def fit(module: ResponseModule, options: FineTuning, processes: Processes | None = None) -> None:
    """Train, together with other processes where there are some; continue where an interrupted run in `options.checkpoint_dir` stopped.

    Raises
    ------
    ValueError
        The interrupted run was another one, or what it left behind is damaged.
    """
    where = resolve_device()
    callbacks: list[pl.Callback] = []
    resume: Path | None = None
    if options.checkpoint_dir is not None:
        folder = Path(options.checkpoint_dir)
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder,
                filename=LAST.removesuffix(".ckpt"),
                save_top_k=1,  # of no monitored score: the latest, written anew after every epoch
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
        )
        resume = folder / LAST if (folder / LAST).is_file() else None
        if resume is not None:
            _check_readable(resume)
    with session(where):
        trainer = plain_trainer(
            where,
            processes,
            precision=precision(options.precision, where),
            max_epochs=options.epochs,
            accumulate_grad_batches=module.accumulate(1 if processes is None else processes.total),
            callbacks=callbacks,
            enable_checkpointing=options.checkpoint_dir is not None,
            reload_dataloaders_every_n_epochs=1,
            limit_val_batches=None if len(module.held_out) else 0,
            inference_mode=False,
        )
        trainer.fit(module, ckpt_path=resume, weights_only=True)


def plain_trainer(
    where: torch.device,
    processes: Processes | None = None,
    *,
    callbacks: Sequence[pl.Callback] = (),
    **settings: Any,
) -> pl.Trainer:
    """A trainer on one device, or in several processes, that writes nothing and shows a bar where bars are shown."""
    bar = [TQDMProgressBar(leave=False)] if visible() else []
    if processes is None:
        settings["devices"] = 1 if where.index is None else [where.index]
    else:
        settings |= {"devices": processes.per_node, "num_nodes": processes.nodes, "strategy": averaging()}
        settings["plugins"] = [processes.environment]
    return pl.Trainer(
        accelerator="gpu" if where.type == "cuda" else where.type,
        callbacks=[*callbacks, *bar],
        enable_progress_bar=visible(),
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **settings,
    )


@contextmanager
def session(where: torch.device) -> Iterator[None]:
    """Training as a guest: global streams, threads and the environment are as the user left them afterwards."""
    cuda = [torch.cuda.current_device() if where.index is None else where.index] if where.type == "cuda" else []
    with _quiet(), _as_found(), torch.random.fork_rng(devices=cuda), _interruptible():
        yield


def _check_readable(resume: Path) -> None:
    """Refuse a file that Lightning could not read, or only by running code in it, before training starts."""
    try:
        check_archive(resume)
        read_state(resume)
    except ValueError as error:
        msg = f"Training cannot be resumed: {error} Delete {resume} to start anew, or give another `checkpoint_dir`."
        raise ValueError(msg) from error


def precision(wanted: str, where: torch.device) -> str:
    """`'auto'` is bfloat16 where a GPU has it."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


@contextmanager
def _as_found() -> Iterator[None]:
    """Undo what Lightning sets where processes train together: threads, and variables by which they meet."""
    variables, threads = dict(os.environ), torch.get_num_threads()
    os.environ.pop("PL_GLOBAL_SEED", None)  # it would seed the streams of numpy and Python again
    try:
        yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Lightning's exit after Ctrl+C, which would end a notebook, back into the interrupt."""
    main = threading.current_thread() is threading.main_thread()
    handler: Any = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on workers and hardware is not for our users."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*(num_workers|GPU available|isinstance\(treespec).*")
        for log in loggers:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(loggers, levels):
                log.setLevel(level)
