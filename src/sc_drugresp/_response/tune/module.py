"""The one training module: any encoder, a head, weighted cross-entropy, scores on held-out samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ..._stats.groups import balanced_weights
from ..heads import LinearHead, MLPHead
from .processes import alike, from_all
from .samplers import Part, balanced_batches, parts, set_batches

if TYPE_CHECKING:
    from ..._data import Tokens
    from ...models._encoder import CellEncoder
    from .options import FineTuning


class TorchHead(nn.Module):
    """A fitted head as a module: standardize, then linear layers with ReLU between them; one logit."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: LinearHead | MLPHead) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(head.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(head.scale, dtype=torch.float32))
        if isinstance(head, LinearHead):
            pairs = [(head.coef[None, :], np.ravel(head.intercept))]
        else:
            pairs = [(head.w1, head.b1), (head.w2, head.b2), (head.w3, head.b3)]
        self.layers = nn.ModuleList(_linear(weight, bias) for weight, bias in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds of `sensitive`, shape `(cells,)`."""
        x = (x - self.mean) / self.scale
        layers = list(self.layers)
        for layer in layers[:-1]:
            x = F.relu(layer(x))
        x = layers[-1](x)
        return x[:, 0] if x.shape[1] == 1 else x[:, 1] - x[:, 0]

    def to_head(self) -> LinearHead | MLPHead:
        """The same head as arrays."""
        arrays = [tensor.detach().cpu().double().numpy() for tensor in self.layers.parameters()]
        mean, scale = self.mean.cpu().double().numpy(), self.scale.cpu().double().numpy()
        if len(self.layers) == 1:
            return LinearHead(mean, scale, arrays[0][0], arrays[1][0])
        return MLPHead(mean, scale, *arrays)


class ResponseModule(pl.LightningModule):
    """Encoder and head on tokens made once; `train` and `held_out` are rows of `tokens`."""

    strict_loading = False  # checkpoints hold what was trained, not the base model

    def __init__(
        self,
        encoder: CellEncoder,
        head: TorchHead,
        tokens: Tokens,
        y: np.ndarray,
        groups: np.ndarray,
        *,
        train: np.ndarray,
        held_out: np.ndarray,
        options: FineTuning,
        seed: int,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.tokens, self.y, self.groups = tokens, y, groups
        self.rows, self.held_out = train, held_out
        self.options, self.seed, self.fingerprint = options, seed, fingerprint
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_loss = float("inf")
        self._losses: list[tuple[Tensor, float]] = []
        self._logits: list[np.ndarray] = []

    # Data -----------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """Batches of this epoch, or the parts of them that fall to this process."""
        y, groups = self.y[self.rows], self.groups[self.rows]
        common = {"seed": self.seed, "epoch": self.current_epoch}
        if self.encoder.set_based:
            batches = set_batches(y, groups, max_cells=self.options.max_cells_per_set, **common)
        else:
            batches = balanced_batches(y, groups, batch_size=self.options.batch_size, **common)
        return self._loader(self.rows, self._parts(batches, divide=not self.encoder.set_based))

    def val_dataloader(self) -> DataLoader:
        """Held-out cells in order, whole samples for set-based models; processes take turns."""
        if self.encoder.set_based:
            groups = self.groups[self.held_out]
            batches = [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]
        else:
            n, size = len(self.held_out), self.options.batch_size
            batches = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
        mine = self._parts(batches, divide=False)
        self._order = [part.cells if part.share else [] for part in mine]
        return self._loader(self.held_out, mine)

    def _parts(self, batches: list[list[int]], *, divide: bool) -> list[Part]:
        return parts(batches, rank=self.trainer.global_rank, total=self.trainer.world_size, divide=divide)

    def _loader(self, rows: np.ndarray, mine: list[Part]) -> DataLoader:
        def collate(part: Part) -> tuple[dict[str, Tensor], Tensor, float]:
            picked = rows[np.asarray(part.cells)]
            y = torch.as_tensor(self.y[picked], dtype=torch.float32)
            return self.encoder.collate(self.tokens.take(picked)), y, part.share

        return DataLoader(mine, batch_size=None, collate_fn=collate)  # type: ignore[arg-type]

    def accumulate(self, total: int) -> int:
        """Batches in a step for each of `total` processes; these share cells of a batch, or else batches of a step."""
        return self.options.accumulate // total if self.encoder.set_based else self.options.accumulate

    # Steps ----------------------------------------------------------------------------------------------------------

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Log-odds of `sensitive`, shape `(cells,)`."""
        return self.head(self.encoder(batch).float())

    def on_train_start(self) -> None:
        """A run that had stopped before it was continued stops again; processes that differ do not begin.

        Raises
        ------
        ValueError
            Processes have other cells, labels, weights or settings, or not all of them found the interrupted run.
        """
        begun = from_all((self.fingerprint, len(self.history)), self.trainer.world_size)
        if len(set(begun)) > 1:
            msg = (
                "The processes that train together differ in cells, labels, weights or settings, or not all of them see "
                "`checkpoint_dir`. All must make the same call, with the same `rng`, and `checkpoint_dir` must be a folder "
                "that they share."
            )
            raise ValueError(msg)
        if self.trainer.world_size > 1:
            alike(self.trained().values())
        self.trainer.should_stop = self.exhausted

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout depends on the seed, the epoch and the batch alone: resuming changes nothing.

        A set draws the same whichever process it falls to; those that share the cells of a batch draw apart.
        """
        rank, total = self.trainer.global_rank, self.trainer.world_size
        drawn = [batch_idx * total + rank] if self.encoder.set_based else [batch_idx, *([rank] if rank else [])]
        words = np.random.SeedSequence([self.seed, self.current_epoch, *drawn]).generate_state(2)
        number = int(words[0]) << 31 | int(words[1]) >> 1
        torch.random.set_rng_state(torch.Generator().manual_seed(number).get_state())
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(number)

    def training_step(self, batch: tuple[dict[str, Tensor], Tensor, float], _: int) -> Tensor:
        """Cross-entropy of a part, times its share. Cells were drawn balanced; a set with both classes is weighted."""
        inputs, y, share_of_batch = batch
        weight = None
        if self.encoder.set_based:
            share = y.mean()
            weight = torch.where(y > 0.5, 1 - share, share) * 2 if 0 < share < 1 else None
        loss = F.binary_cross_entropy_with_logits(self(inputs), y, weight=weight) * share_of_batch
        self._losses.append((loss.detach(), share_of_batch))
        self.log("loss", loss, prog_bar=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[dict[str, Tensor], Tensor, float], _: int) -> None:
        """Collect held-out logits."""
        self._logits.append(self(batch[0]).float().cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        """Score held-out samples in evaluation mode, and keep the best parameters; all processes decide alike."""
        logits = self.held_out_logits()
        y, groups = self.y[self.held_out], self.groups[self.held_out]
        loss, auroc = from_all(held_out_scores(logits, y, groups), self.trainer.world_size)[0]
        self.log("held_out_loss", loss, prog_bar=True)
        self.log("held_out_auroc", auroc, prog_bar=True)
        self._record({"held_out_loss": loss, "held_out_auroc": auroc})
        if loss < self.best_loss:
            self.best_loss = loss
            self.best = {name: value.detach().cpu().clone() for name, value in self.trained().items()}
        self.trainer.should_stop = self.trainer.should_stop or self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the held-out loss has not fallen for `patience` epochs, or is no number."""
        losses = [row.get("held_out_loss", np.nan) for row in self.history]
        if not losses or not len(self.held_out):
            return False
        return not np.isfinite(losses[-1]) or len(losses) - 1 - int(np.argmin(losses)) >= self.options.patience

    def _record(self, scores: dict[str, float]) -> None:
        """Note the epoch in the history, with the loss of its batches over all processes."""
        losses, shares = zip(*self._losses) if self._losses else ((torch.tensor(float("nan")),), (1.0,))
        sums = from_all((float(torch.stack(losses).sum()), sum(shares)), self.trainer.world_size)
        loss = sum(total for total, _ in sums) / sum(share for _, share in sums)
        self._losses.clear()
        self.history.append({"epoch": float(self.current_epoch + 1), "loss": loss, **scores})

    def held_out_logits(self) -> np.ndarray:
        """Logits of the held-out cells, in the order of `held_out`."""
        out = np.full(len(self.held_out), np.nan)
        for order, logits in from_all((self._order, self._logits), self.trainer.world_size):
            for cells, found in zip(order, logits, strict=True):
                out[cells] = found[: len(cells)]
        self._logits = []
        return out

    def on_train_epoch_end(self) -> None:
        """Without held-out samples the last epoch is kept and its training loss noted."""
        if not len(self.held_out):
            self._record({})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with one rate for the encoder and one for the head."""
        o = self.options
        encoder = [p for p in self.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": encoder, "lr": o.learning_rate},
            {"params": self.head.parameters(), "lr": o.head_learning_rate},
        ]
        return torch.optim.AdamW(groups, weight_decay=o.weight_decay)

    # State ----------------------------------------------------------------------------------------------------------

    def trained(self) -> dict[str, Tensor]:
        """Parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def restore_best(self) -> None:
        """Go back to the epoch with the lowest held-out loss.

        Raises
        ------
        RuntimeError
            The loss was no number in any epoch.
        """
        if not self.history or not np.isfinite(self.best_loss if len(self.held_out) else self.history[-1]["loss"]):
            msg = "Training diverged: the loss is no finite number. Lower `learning_rate`, or use precision='32-true'."
            raise RuntimeError(msg)
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in self.best.items():
                parameters[name].copy_(value.to(parameters[name].device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, the best epoch, and what the run was about."""
        trained = self.trained()
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint["sc_drugresp"] = {
            "history": self.history,
            "best": self.best,
            "best_loss": self.best_loss,
            "fingerprint": self.fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue a run, if it is the same run.

        Raises
        ------
        ValueError
            The saved run had other data, another base model or other settings.
        """
        saved = checkpoint["sc_drugresp"]
        if saved["fingerprint"] != self.fingerprint:
            msg = (
                "The interrupted run in `checkpoint_dir` had other cells, labels, weights or settings. Use another "
                "folder, or empty it to start again."
            )
            raise ValueError(msg)
        self.history, self.best, self.best_loss = list(saved["history"]), dict(saved["best"]), float(saved["best_loss"])


def held_out_scores(logits: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Log loss and AUROC of held-out cells, classes and samples weighing the same.

    AUROC is NaN for one class; both are NaN if training diverged.
    """
    if not np.isfinite(logits).all():
        return float("nan"), float("nan")
    weights = balanced_weights(y, groups)
    prob = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    loss = float(log_loss(y, prob, labels=[0, 1], sample_weight=weights))
    both = len(np.unique(y)) == 2
    return loss, float(roc_auc_score(y, logits, sample_weight=weights)) if both else float("nan")


def _linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight, dtype=torch.float32))
        layer.bias.copy_(torch.as_tensor(bias, dtype=torch.float32))
    return layer
