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
        Cells in a batch, and batches in a step.
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

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return dataclass_text("sdr.tl.FineTuning", self)
