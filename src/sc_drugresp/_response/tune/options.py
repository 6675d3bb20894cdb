"""Settings of fine-tuning; plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from ..._core.arguments import check_fields
from ..._core.calls import dataclass_text

if TYPE_CHECKING:
    from os import PathLike

    from ..._core.kinds import NonNegativeFloat, PositiveFloat, PositiveInt, Range, Share, ShareOrNone

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Strategy = Literal["auto", "ddp"]

_STARTS_ITSELF = (
    "starts its processes from yours, where the trained model would be missing afterwards and a GPU may not have been "
    "used before. Start a script with torchrun or srun and use 'ddp'"
)
_DIVIDES = (
    "divides the parameters among the processes, and adapters and the best epoch are kept whole here. The encoders fit on "
    "one GPU: use 'ddp'"
)
UNSUITED = {
    "ddp_spawn": _STARTS_ITSELF,
    "ddp_fork": _STARTS_ITSELF,
    "ddp_notebook": _STARTS_ITSELF,
    "ddp_find_unused": "looks for parameters that a step leaves out, and there are none. Use 'ddp'",
    "fsdp": _DIVIDES,
    "deepspeed": _DIVIDES,
    "model_parallel": _DIVIDES,
}
"""Lightning's other strategies, by how their names begin, and why they are not offered."""


@dataclass(frozen=True)
class FineTuning:
    """How an encoder is tuned. The defaults follow Hu et al. (LoRA, arXiv:2106.09685) and common practice.

    Parameters
    ----------
    rank, alpha, dropout
        Settings of the LoRA adapters on the query, key, value and output projections and on both feed-forward layers.
    learning_rate, head_learning_rate
        Learning rates of AdamW: for the adapters (or the encoder, with `mode='full'`) and for the head.
    weight_decay
        Weight decay of AdamW.
    epochs
        Most epochs. An epoch shows as many cells as there are in training, drawn so that classes and samples are balanced.
    patience
        Epochs without a lower held-out loss before training stops.
    batch_size, accumulate
        Cells in a batch, and batches in a step; with several processes, of all of them together. A batch of a set-based
        model is one set of cells.
    max_cells_per_set
        Most cells in a training set of a set-based model; larger samples are split at random in every epoch.
    precision
        `'32-true'`, `'bf16-mixed'` or `'16-mixed'`; `'auto'` uses bfloat16 where a GPU has it, otherwise float32.
    gradient_checkpointing
        Recompute activations to save memory; `'auto'` on GPUs.
    validation
        Share of the samples that is held out for early stopping and calibration.
    merge
        Keep merged weights instead of an adapter.
    force
        Train even if a class has a single sample; no samples are then held out.
    checkpoint_dir
        Folder for the state after each epoch. A run that was interrupted continues from there.
    devices, num_nodes
        Processes on each machine, each with a GPU of its own (or on the CPU), and machines. More than one have to be started
        by torchrun or by SLURM's srun, and all of them make the same call; `'auto'` takes as many as were started. They
        share each step, so that the result is that of one process up to rounding (and dropout, which draws anew), and each
        returns the trained model.
    strategy
        `'ddp'` (each process holds the whole model, gradients are averaged), or `'auto'`: `'ddp'` with several processes.
    """

    rank: Annotated[int, Range(least=1, most=10_000)] = 8
    alpha: PositiveInt = 16
    dropout: ShareOrNone = 0.05
    learning_rate: PositiveFloat = 1e-4
    head_learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    epochs: PositiveInt = 5
    patience: PositiveInt = 2
    batch_size: PositiveInt = 32
    accumulate: PositiveInt = 1
    max_cells_per_set: PositiveInt = 1_000
    precision: Precision = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    validation: Share = 0.25
    merge: bool = False
    force: bool = False
    checkpoint_dir: str | PathLike[str] | None = None
    devices: PositiveInt | Literal["auto"] = 1
    num_nodes: PositiveInt = 1
    strategy: Strategy = "auto"

    def __post_init__(self) -> None:
        why = next((why for name, why in UNSUITED.items() if str(self.strategy).startswith(name)), None)
        if why is not None:
            msg = f"strategy={self.strategy!r} {why}."
            raise ValueError(msg)
        check_fields(self)

    def __repr__(self) -> str:
        return dataclass_text("sdr.tl.FineTuning", self)
