"""Training of a student with Lightning: batches of sparse rows, two losses, early stopping on held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from .._core.device import resolve_device
from .._response.tune.trainer import plain_trainer, session
from ..models._student_network import StudentNetwork

if TYPE_CHECKING:
    from scipy import sparse

    from .naive import Linear
    from .scales import Scales


@dataclass(frozen=True)
class Settings:
    """How long and how fast."""

    width: int
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01


class StudentModule(pl.LightningModule):
    """A network, profiles and standardized targets; `train` and `stop` are rows of both.

    The loss is the mean squared error of the standardized targets plus one minus the cosine of the centered embeddings. The
    first counts every dimension alike, so that what varies little is learned as well, as far as it can be; the second
    counts them as distances and neighbors do, so that what varies much is learned first.
    """

    def __init__(
        self,
        network: StudentNetwork,
        profiles: sparse.csr_matrix,
        targets: np.ndarray,
        *,
        train: np.ndarray,
        stop: np.ndarray,
        settings: Settings,
        seed: int,
    ) -> None:
        super().__init__()
        self.network, self.profiles, self.targets = network, profiles, targets
        self.train_rows, self.stop_rows, self.settings, self.seed = train, stop, settings, seed
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self._losses: list[Tensor] = []
        self._stop_losses: list[tuple[float, int]] = []

    def train_dataloader(self) -> DataLoader:
        """Every cell once, in the order of this epoch."""
        order = np.random.default_rng([self.seed, 2, self.current_epoch]).permutation(self.train_rows)
        return self._loader(order)

    def val_dataloader(self) -> DataLoader:
        """Cells of the samples by which training stops."""
        return self._loader(self.stop_rows)

    def _loader(self, rows: np.ndarray) -> DataLoader:
        size = self.settings.batch_size
        batches = [rows[start : start + size].tolist() for start in range(0, len(rows), size)]
        return DataLoader(range(len(self.targets)), batch_sampler=batches, collate_fn=self._collate)  # type: ignore[arg-type]

    def _collate(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.profiles[rows].toarray()), torch.from_numpy(self.targets[rows])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean squared error of standardized targets, and one minus the cosine on the scale of the teacher."""
        profiles, targets = batch
        found, scale = self.network.standardized(profiles), self.network.target_scale
        angle = 1 - F.cosine_similarity(found * scale, targets * scale, dim=1).mean()
        return F.mse_loss(found, targets) + angle

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Loss of a batch."""
        loss = self.loss(batch)
        self._losses.append(loss.detach())
        self.log("loss", loss, prog_bar=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Collect the loss of the samples by which training stops."""
        self._stop_losses.append((float(self.loss(batch)), len(batch[0])))

    def on_validation_epoch_end(self) -> None:
        """Keep the best weights; stop if they are old."""
        losses, sizes = zip(*self._stop_losses)
        loss = float(np.average(losses, weights=sizes))
        self._stop_losses.clear()
        trained = float(torch.stack(self._losses).mean()) if self._losses else None
        self._losses.clear()
        # Epoch 0 is before training: a network that never does better stays the regression that it started from.
        if not self.history or loss < min(row["held_out_loss"] for row in self.history):
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        self.history.append({"epoch": len(self.history), "loss": trained, "held_out_loss": loss})
        past = [row["held_out_loss"] for row in self.history]
        old = len(past) - 1 - int(np.argmin(past)) >= self.settings.patience
        self.trainer.should_stop = self.trainer.should_stop or old or not np.isfinite(loss)

    def configure_optimizers(self) -> Any:
        """AdamW; the rate falls to nothing along half a cosine."""
        o = self.settings
        steps = o.epochs * -(-len(self.train_rows) // o.batch_size)
        optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad], lr=o.learning_rate, weight_decay=o.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train_student(
    profiles: sparse.csr_matrix,
    targets: np.ndarray,
    scales: Scales,
    start: Linear,
    *,
    train: np.ndarray,
    stop: np.ndarray,
    settings: Settings,
    seed: int,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Arrays of the network that did best on the rows of `stop`, and one row per epoch; epoch 0 is the regression it starts from.

    Parameters
    ----------
    profiles, targets
        Inputs, and embeddings of the teacher in units of their spread, one row per cell.
    scales
        Means and spreads over the rows of `train`.
    start
        The regression that the network starts from and corrects; its weights stay.
    train, stop
        Rows to learn from and to stop by.
    settings, seed
        How long, how fast, and where from.

    Raises
    ------
    RuntimeError
        The loss is no finite number.
    """
    network = StudentNetwork.empty(profiles.shape[1], settings.width, targets.shape[1])
    network.draw(seed)
    for name, value in (
        ("mean", scales.input_mean),
        ("scale", scales.input_scale),
        ("target_mean", scales.target_mean),
        ("target_scale", scales.target_scale),
    ):
        getattr(network, name).copy_(torch.from_numpy(value))
    with torch.no_grad():
        network.skip.weight.copy_(torch.from_numpy(start.weights.T))
        network.skip.bias.copy_(torch.from_numpy(start.level))
        network.leave.weight.zero_()
    network.skip.requires_grad_(requires_grad=False)
    module = StudentModule(network, profiles, targets, train=train, stop=stop, settings=settings, seed=seed)
    where = resolve_device()
    with session(where):
        trainer = plain_trainer(
            where, max_epochs=settings.epochs, enable_checkpointing=False, reload_dataloaders_every_n_epochs=1
        )
        trainer.validate(module, verbose=False)
        trainer.fit(module)
    if not module.history or not np.isfinite(module.history[0]["held_out_loss"]):
        msg = "Training diverged: the loss is no finite number. Lower `learning_rate`."
        raise RuntimeError(msg)
    network.load_state_dict(module.best)
    return network.arrays(), module.history
