"""Base class of the networks: what a model has to define, and defaults that fit a transformer over tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from .._data import GeneVocab
from .._nn import run_layers
from ._layouts import rename, split_rows
from ._weights import load_strict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .._data import Tokens
    from ._config import Config

Batch = dict[str, Tensor]


class CellNetwork(nn.Module, ABC):
    """Maps padded tokens to cell embeddings.

    Attributes
    ----------
    config
        Sizes and options, a frozen dataclass.
    vocab
        The genes that the model knows.
    layers, final_norm
        Modules called as `layer(x, keep, queries=...)`, see :func:`~sc_drugresp._nn.run_layers`, and one behind them.
    renames, dropped
        Regular expressions: published names of parameters to ours, and those that an embedding does not need.
    lora_targets
        Regular expression that names the `nn.Linear` modules for adapters.
    reads_values
        Whether each token has a value.
    pad_id, pad_value
        What fills up the shorter sequences of a batch.
    n_ids, longest
        Token ids and positions of the network, where they are limited.
    engines
        What can compute the network. A model whose :meth:`hidden` is not what :meth:`after_stem` does, one layer after the
        other, says `("torch",)`.
    depth_stated
        Whether a file says how many layers there are. Otherwise they were counted, and nobody would miss the last one.
    """

    Config: ClassVar[type[Config]]
    renames: ClassVar[Mapping[str, str]] = {}
    dropped: ClassVar[tuple[str, ...]] = ()
    lora_targets: str = r".*\.(attn\.[qkvo]|up|down)"
    reads_values: ClassVar[bool] = False
    engines: ClassVar[tuple[str, ...]] = ("torch", "openvino")

    layers: nn.ModuleList
    pad_id: int = 0
    pad_value: float = 0.0
    n_ids: int | None = None
    longest: int | None = None
    depth_stated: bool = True

    def __init__(self, config: Any, vocab: GeneVocab) -> None:
        super().__init__()
        self.config, self.vocab = config, vocab
        self.name = ""
        self.checkpoint: dict[str, Any] = {}
        self.gradient_checkpointing = False
        self.converted: Callable[[Tensor, Batch], Tensor] | None = None
        self.final_norm: nn.Module = nn.Identity()

    # What a model defines -----------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build the model from its published files, by role; `options` replace fields of `Config`."""

    @abstractmethod
    def inputs(self, batch: Batch) -> Tensor:
        """Input of the first layer, shape `(cells, length, width)`."""

    @abstractmethod
    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cell embedding from the output of the last layer, shape `(cells, dim)`; differentiable."""

    # What a model may change --------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return int(self.config.dim)

    @property
    def leading(self) -> int | None:
        """How many leading positions of the last layer :meth:`pool` reads; `None` for all of them."""
        return None

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """A vocabulary of made-up names, as large as the published one."""
        return GeneVocab([f"GENE{i}" for i in range(20_000)])

    @classmethod
    def remap(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename published parameters to ours; fused projections are split into q, k and v."""
        return split_rows(rename(state, cls.renames, drop=cls.dropped), r"\.attn\.(qkv)\.", ("q", "k", "v"))

    def collate(self, tokens: Tokens) -> Batch:
        """Padded tensors of all cells in `tokens`, on the CPU.

        `ids`, and `values` where the model reads them, have the shape `(cells, length)`, `length` has `(cells,)`; the
        mask `keep`, True for real tokens, is there only when lengths differ.
        """
        check_tokens(self, tokens)
        lengths, ids = tokens.lengths, tokens.padded(tokens.ids, self.pad_id)
        batch = {"ids": torch.from_numpy(ids).long(), "length": torch.from_numpy(lengths)}
        if self.reads_values:
            values = np.asarray(tokens.values, dtype=np.float32)
            batch["values"] = torch.from_numpy(tokens.padded(values, self.pad_value))
        if len(lengths) and lengths.min() < ids.shape[1]:
            batch["keep"] = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])
        return batch

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Output of the last layer, shape `(cells, length, width)`: every token, or the first `leading` ones alone."""
        x = run_layers(
            self.layers,
            self.inputs(batch),
            batch.get("keep"),
            queries=leading,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        return self.final_norm(x)

    def forward(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`; the last layer is computed for the positions that are pooled."""
        return self.pool(self.hidden(batch, self.leading), batch)

    def stem(self, batch: Batch) -> Tensor:
        """Input of the first layer at the positions that the embedding needs, shape `(cells, length, width)`."""
        return self.inputs(batch)

    def after_stem(self, x: Tensor, batch: Batch) -> Tensor:
        """Cell embedding from what :meth:`stem` gives; reads `length` and `keep` of the batch."""
        return self.pool(self.final_norm(run_layers(self.layers, x, batch.get("keep"), queries=self.leading)), batch)

    @property
    def body(self) -> nn.Module:
        """What takes most of the time."""
        return self.layers

    def compute(self, batch: Batch) -> Tensor:
        """Cell embedding, shape `(cells, dim)`, by the engine in force; not differentiable where that is not PyTorch."""
        return self(batch) if self.converted is None else self.converted(self.stem(batch), batch)

    @classmethod
    def translate(cls, state: Mapping[str, Tensor], *, source: object) -> dict[str, Tensor]:
        """As :meth:`remap`; errors name the file.

        Raises
        ------
        ValueError
            A tensor has not the shape that it must have to be translated.
        """
        try:
            return cls.remap(state)
        except (ValueError, RuntimeError, IndexError) as error:
            msg = f"{source}: {str(error).splitlines()[0]}. Check that the file belongs to {cls.__name__}, or download it again."
            raise ValueError(msg) from error

    @classmethod
    def build(cls, config: Any, vocab: GeneVocab, state: Mapping[str, Tensor], *, source: object) -> Self:
        """Build on the `meta` device, load strictly, and switch to evaluation."""
        translated = cls.translate(state, source=source)
        depth = getattr(config, "layers", 0)
        if depth > max(1_000, len(translated)):  # not a million modules to find out that their tensors are missing
            msg = f"{source} has {len(translated)} tensors, but its configuration says {depth} layers. Take both from one checkpoint."
            raise ValueError(msg)
        try:
            with torch.device("meta"):
                model = cls(config, vocab)
        except ValueError as error:
            msg = f"{source}: {error}"
            raise ValueError(msg) from error
        load_strict(model, translated, source=source)
        return model.eval()

    @classmethod
    def random(cls, config: Any = None, vocab: GeneVocab | None = None, *, seed: int = 0) -> Self:
        """Build with random parameters, for tests and benchmarks of speed; `None` is the published size.

        Parameters
        ----------
        config
            Sizes and options.
        vocab
            Genes; `None` makes up as many names as the published checkpoint knows, see :meth:`example_vocab`.
        seed
            Seed of the parameters.
        """
        config = cls.Config() if config is None else config
        with torch.device("meta"):
            model = cls(config, cls.example_vocab(config) if vocab is None else vocab)
        load_strict(model, random_state(model, seed), source="random parameters")
        return model.eval()

    def redraw(self, seed: int = 0) -> Self:
        """Replace what was pretrained by random parameters, as at the start of training, in place.

        Buffers stay, and so does what the network reads beside its parameters, such as the protein embeddings of UCE.

        Parameters
        ----------
        seed
            Seed of the parameters.

        Returns
        -------
        The network itself.
        """
        drawn, trained = random_state(self, seed), {name for name, _ in self.named_parameters()}
        state = {name: drawn[name] if name in trained else value for name, value in self.state_dict().items()}
        load_strict(self, state, source="random parameters")
        return self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device


def check_tokens(encoder: CellNetwork, tokens: Tokens) -> None:
    """Refuse tokens that the network has no parameters for.

    Raises
    ------
    ValueError
        A value is missing, an id is out of range, or a sequence is too long.
    """
    if encoder.reads_values and tokens.values is None:
        msg = f"{type(encoder).__name__} needs a value for each token in `Tokens.values`; these tokens have none."
        raise ValueError(msg)
    if encoder.n_ids is not None and len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < encoder.n_ids:
        msg = (
            f"Token ids must lie between 0 and {encoder.n_ids - 1}, found {tokens.ids.min()} to {tokens.ids.max()}. "
            "Are these tokens of another model?"
        )
        raise ValueError(msg)
    if encoder.longest is not None and (most := tokens.lengths.max(initial=0)) > encoder.longest:
        msg = f"A sequence has {most} tokens; this checkpoint has {encoder.longest} positions."
        raise ValueError(msg)


def random_state(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random parameters: matrices from N(0, 0.02), norms and biases as at the start of training."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, like in module.state_dict().items():
        if like.is_floating_point() and like.ndim > 1:
            state[name] = torch.empty(like.shape, dtype=like.dtype).normal_(0.0, 0.02, generator=generator)
        else:
            fill = torch.ones if like.is_floating_point() and name.endswith("weight") else torch.zeros
            state[name] = fill(like.shape, dtype=like.dtype)
    return state
