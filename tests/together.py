"""Tunes tiny checkpoints, alone or in processes that torchrun or SLURM started; `python together.py FOLDER CASE...`.

Each process writes what the cases gave it into a file named after its rank.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import cell_lines, golden, load

import sc_drugresp as sdr
from sc_drugresp._response.tune import finetune as tuning
from sc_drugresp._response.tune.module import ResponseModule
from sc_drugresp._response.tune.options import FineTuning

COMMON: dict[str, Any] = {
    "rank": 2,
    "epochs": 2,
    "patience": 2,
    "dropout": 0.0,
    "precision": "32-true",
    "devices": "auto",
}
CASES: dict[str, dict[str, Any]] = {
    # 15 or fewer cells in an epoch: the last batch of the first case is a single cell, for one of the two processes.
    "lora": {"name": "tgpt", "settings": {"batch_size": 7, "epochs": 3, "patience": 3}},
    "full": {"name": "scgpt", "mode": "full", "settings": {"batch_size": 4, "accumulate": 2}},
    "sets": {"name": "cellplm", "dropout": True, "settings": {"accumulate": 2, "max_cells_per_set": 2, "dropout": 0.1}},
    "all": {"name": "tgpt", "settings": {"batch_size": 6, "force": True}, "lines": ["line0", "line1"]},
    "stops": {"name": "tgpt", "settings": {"patience": 1, "epochs": 9, "learning_rate": 0.05}, "adamw": True},
    "resumed": {"name": "tgpt", "settings": {"batch_size": 7, "epochs": 3, "patience": 3}, "resume": True},
    "differ": {"name": "tgpt", "settings": {}, "differ": True},
    "too small": {"name": "tgpt", "settings": {"batch_size": 1}},
    "odd sets": {"name": "cellplm", "settings": {}},
    "odd number": {"name": "tgpt", "settings": {"devices": 3}},
}


def rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def without_dropout(encoder: torch.nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


class Watched(ResponseModule):
    """Notes its parts of the batches. Plain descent shows a wrong scale of gradients, to which Adam is blind."""

    seen: list[list[tuple[list[int], float]]]
    adamw: bool

    def train_dataloader(self):
        loader = super().train_dataloader()
        self.seen.append([(self.rows[part.cells].tolist(), part.share) for part in loader.dataset])
        return loader

    def configure_optimizers(self):
        return super().configure_optimizers() if self.adamw else torch.optim.SGD(list(self.trained().values()), lr=0.1)


def tune(
    folder: Path,
    *,
    name: str,
    settings: dict[str, Any],
    mode: str = "lora",
    dropout: bool = False,
    adamw: bool = False,
    resume: bool = False,
    differ: bool = False,
    lines: list[str] | None = None,
) -> dict[str, Any]:
    """What a run gave, and the cells that this process computed, epoch by epoch."""
    adata = cell_lines()
    adata = adata[adata.obs["cell_line"].isin(lines)].copy() if lines else adata
    y = (adata.obs["response"] == "sensitive").to_numpy().astype(np.int64)
    y = 1 - y if differ and rank() else y
    groups = adata.obs["cell_line"].astype(str).to_numpy(dtype=str)
    seen: list[Any] = []
    watched = type("Watched", (Watched,), {"seen": seen, "adamw": adamw})
    runs = [{"epochs": 1}, {}] if resume else [{}]
    for changes in runs:
        encoder = load(name)
        if not dropout:
            without_dropout(encoder)
        how = FineTuning(**{**COMMON, **settings, **changes, "checkpoint_dir": folder / "run" if resume else None})
        tuning.ResponseModule = watched
        os.environ["PL_GLOBAL_SEED"] = "3"  # as `seed_everything` of Lightning leaves it
        before = dict(os.environ), torch.get_num_threads(), np.random.get_state()[1].tolist()
        try:
            tokens = encoder.tokenize(adata)
            tuned = tuning.finetune(encoder, tokens, y, groups, mode=mode, head="logistic", options=how, seed=0)
        finally:
            tuning.ResponseModule = ResponseModule
        assert before == (dict(os.environ), torch.get_num_threads(), np.random.get_state()[1].tolist())
        del os.environ["PL_GLOBAL_SEED"]
    weights = tuned.adapter["tensors"] if tuned.adapter else tuned.weights
    arrays = {key: tensor.numpy() for key, tensor in weights.items()} | {"head": tuned.head.coef}
    return {"history": tuned.history, "logits": tuned.logits, "weights": arrays, "seen": seen}


def verb() -> dict[str, Any]:
    """The same through the public function."""
    adata = cell_lines()
    settings = sdr.tl.FineTuning(epochs=1, rank=2, batch_size=8, devices=2, strategy="ddp")
    common = {"group_key": "cell_line", "checkpoint": golden("tgpt").weights}
    model = sdr.tl.train_response(adata, model="tgpt", mode="lora", tuning=settings, **common)
    return {"history": model.history, "weights": {k: t.numpy() for k, t in model.adapter["tensors"].items()}}


if __name__ == "__main__":
    sdr.settings.device, sdr.settings.progress = "cpu", False
    folder, out = Path(sys.argv[1]), {}
    for case in sys.argv[2:]:
        try:
            out[case] = verb() if case == "verb" else tune(folder, **CASES[case])
        except ValueError as error:
            out[case] = {"error": str(error)}
    (folder / f"{rank()}.pickle").write_bytes(pickle.dumps(out))
