"""scBERT :cite:p:`Yang2022`: a Performer over all 16,906 genes of a cell, each with its expression class.

The trunk, :class:`PerformerEncoder`, is shared with CellLM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .._core.log import logger, warn
from .._data import CountBlock, GeneVocab, Tokens
from .._data.logbins import bin_tokens, log2_cp10k
from .._nn import PerformerLayer
from ._encoder import Batch, CellEncoder
from ._weights import read_state, rename

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX = r"(?:module\.|encoder\.)*"
_RENAMES = {
    rf"^{_PREFIX}": "",
    r"^token_emb\.": "value.",
    r"^pos_emb\.emb\.weight$": "gene.table",
    r"^performer\.net\.layers\.": "layers.",
    r"^(layers\.\d+)\.0\.norm\.": r"\1.attn_norm.",
    r"^(layers\.\d+)\.0\.fn\.to_([qkv])\.": r"\1.attn.\2.",
    r"^(layers\.\d+)\.0\.fn\.to_out\.": r"\1.attn.o.",
    r"^(layers\.\d+)\.0\.fn\.fast_attention\.projection_matrix$": r"\1.attn.projection",
    r"^(layers\.\d+)\.1\.norm\.": r"\1.ffn_norm.",
    r"^(layers\.\d+)\.1\.fn\.fn\.w1\.": r"\1.up.",
    r"^(layers\.\d+)\.1\.fn\.fn\.w2\.": r"\1.down.",
}
_DROPPED = (rf"{_PREFIX}to_out\.", rf"{_PREFIX}performer\.calls_since_last_redraw$")
"""The masked-token head, and a counter of the redraw of random directions, which never happens here."""

Pooling = Literal["mean_genes", "mean_all", "last"]


@dataclass(frozen=True)
class PerformerConfig:
    """Sizes of a Performer over genes. `heads * head_dim` need not be `dim`."""

    dim: int = 200
    layers: int = 6
    heads: int = 10
    head_dim: int = 64
    features: int = 266
    ffn_dim: int = 800
    n_tokens: int = 7
    genes: int = 16_906

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, specials: int, source: object) -> Any:
        """Read every size from tensors under our names; `specials` rows of the gene table are no genes.

        Raises
        ------
        ValueError
            The tensors that tell the sizes are not there: another model.
        """
        wanted = {
            "value.weight",
            "gene.table",
            *(f"layers.0.{name}" for name in ("attn.q.weight", "attn.projection", "up.weight")),
        }
        missing = sorted(wanted - state.keys())
        if missing:
            found = ", ".join(sorted(state)[:4]) or "nothing"
            msg = (
                f"{source} is not a checkpoint of {cls.__name__.removesuffix('Config')}: {', '.join(missing)} "
                f"are missing (after renaming), found {found} ... Check that the file belongs to this model."
            )
            raise ValueError(msg)
        features, head_dim = state["layers.0.attn.projection"].shape
        n_tokens, dim = state["value.weight"].shape
        return cls(
            dim=dim,
            layers=1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
            heads=state["layers.0.attn.q.weight"].shape[0] // head_dim,
            head_dim=head_dim,
            features=features,
            ffn_dim=state["layers.0.up.weight"].shape[0],
            n_tokens=n_tokens,
            genes=state["gene.table"].shape[0] - specials,
        )


@dataclass(frozen=True)
class ScBERTConfig(PerformerConfig):
    """Sizes and options of scBERT.

    Attributes
    ----------
    pooling
        Cell embedding: mean over the genes (the default; upstream publishes none), over all positions, or the appended
        last position.
    """

    pooling: Pooling = "mean_genes"

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, get_args(Pooling))


class GeneTable(nn.Module):
    """Fixed gene vectors (gene2vec). They are published and added in double precision, and never trained."""

    table: Tensor

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(rows, dim, dtype=torch.float64))

    def forward(self, x: Tensor, ids: Tensor | None = None) -> Tensor:
        """Add the vectors of the genes `ids` (of all of them, in order) to `x`; rounded once."""
        table = self.table if ids is None else self.table[ids]
        return (x.to(table.dtype) + table).to(x.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> GeneTable:  # noqa: FBT001, FBT002 (signature of torch)
        if fn(torch.empty(0)).device.type == "mps":  # which has no double precision: costs about 1e-6
            self.table = self.table.float()
        return super()._apply(fn, recurse)


class PerformerEncoder(CellEncoder):
    """Gene vector plus class vector, pre-norm layers with FAVOR+ attention, a final norm."""

    lora_targets: ClassVar[str] = r"layers\.\d+\.(attn\.[qkvo]|up|down)"
    specials: ClassVar[int] = 1
    config: Any

    def __init__(self, config: Any, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.value = nn.Embedding(config.n_tokens, config.dim)
        self.gene = GeneTable(config.genes + self.specials, config.dim)
        self.layers = nn.ModuleList(
            PerformerLayer(config.dim, config.heads, config.head_dim, config.features, config.ffn_dim)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """Made-up names, as many as the gene table has."""
        return GeneVocab([f"GENE{i}" for i in range(config.genes)], duplicates="first")

    @staticmethod
    def remap(state: Mapping[str, Any]) -> dict[str, Any]:
        """Published names to ours; drops the masked-token head and the redraw counter.

        Takes a bare state dict or a training checkpoint that holds one, with or without a `module.` prefix.
        """
        for key in ("model_state_dict", "state_dict", "model"):
            if isinstance(state.get(key), Mapping):
                state = state[key]
        return rename(state, _RENAMES, drop=_DROPPED)

    def encode(self, x: Tensor, *inputs: Tensor | None, queries: slice | None = None) -> Tensor:
        """All layers and the final norm; the last layer computes the positions `queries` only."""
        for i, layer in enumerate(self.layers):
            rows = queries if i == len(self.layers) - 1 else None
            weight, keep = inputs or (None, None)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, weight, keep, rows, use_reentrant=False)
            else:
                x = layer(x, weight, keep, rows)
        return self.norm(x)


class ScBERT(PerformerEncoder):
    """scBERT :cite:p:`Yang2022`.

    A token is the class of one gene: `ids` are gene indices, `values` classes above 0 (0: below 1 count per 10,000,
    1: up to 3, 2: up to 7, 3: up to 15, 4: up to 31, 5: more). All other genes are class 0, and a position of class 0
    is appended, so every cell has one length. :meth:`embed_tokens` also takes recorded sequences of classes, one for
    each position, without `values`. The published code's result for one cell at a time is computed in any batch.
    """

    Config = ScBERTConfig

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> ScBERT:
        """Read sizes from the checkpoint, gene names from `gene_order.txt` or the `var_names` of an h5ad.

        Raises
        ------
        FileNotFoundError
            There is no gene list.
        ValueError
            The files are damaged, of another model, or do not belong together.
        """
        names = read_genes(files, "gene_order.txt, or panglao_10000.h5ad with the genes in its var_names")
        state = read_tensors(files["weights"])
        config = ScBERTConfig.from_state(cls.remap(state), specials=cls.specials, source=files["weights"])
        check_genes(names, config.genes, files["weights"])
        if len(names) == 16_906 and hashlib.sha256("\n".join(names).encode()).hexdigest() != _GENE_ORDER:
            warn("The list of genes is not the published one; if its order differs, the embedding means nothing.")
        vocab = GeneVocab(names, duplicates="first")
        return cls.build(cls.configure(config, options), vocab, state, source=files["weights"])  # type: ignore[return-value]

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Classes of the genes that reach one count per 10,000."""
        few = int((np.diff(block.indptr) < 200).sum())
        if few:
            logger.info(
                "%d of %d cells express fewer than 200 known genes, which scBERT was not trained on", few, len(block)
            )
        values = log2_cp10k(block)
        return bin_tokens(block, values, values >= 1, top=self.config.n_tokens - 2)

    def dense(self, tokens: Tokens) -> np.ndarray:
        """Class of every position, shape `(cells, genes + 1)`: the sequence that the network reads.

        Raises
        ------
        ValueError
            Ids or classes are out of range, or sequences without values are not of full length.
        """
        length, top = self.config.genes + 1, self.config.n_tokens
        if tokens.values is None and (tokens.lengths != length).any():
            msg = (
                f"Without `values`, tokens are classes of all {length} positions (genes and one more), found sequences "
                f"of {tokens.lengths.min()} to {tokens.lengths.max()}. Or give gene indices as `ids` and classes as `values`."
            )
            raise ValueError(msg)
        classes = tokens.ids if tokens.values is None else np.asarray(tokens.values)
        check_range("expression class", classes, top)
        if tokens.values is None:
            return classes.reshape(len(tokens), length).astype(np.int8)
        check_range("gene index", tokens.ids, length)
        out = np.zeros((len(tokens), length), dtype=np.int8)
        out[np.repeat(np.arange(len(tokens)), tokens.lengths), tokens.ids] = classes
        return out

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """One length for all: every gene is a position, expressed or not."""
        return np.full(len(tokens), self.config.genes + 1, dtype=np.int64)

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """All cells; one without counts is a sequence of zeros."""
        return np.ones(len(tokens), dtype=bool)

    def collate(self, tokens: Tokens) -> Batch:
        """`values`: class of every position, shape `(cells, genes + 1)`, int64."""
        return {"values": torch.from_numpy(self.dense(tokens).astype(np.int64))}

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the final norm, shape `(cells, genes + 1, dim)`: the genes in order, then the appended position."""
        return self.encode(self.gene(self.value(batch["values"])))

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cell embedding that `config.pooling` asks for, shape `(cells, dim)`."""
        if self.config.pooling == "last":
            return hidden[:, -1]
        return (hidden[:, :-1] if self.config.pooling == "mean_genes" else hidden).mean(1)

    def forward(self, batch: Batch) -> Tensor:
        """As `pool(hidden(batch), batch)`; the last layer answers one query where one position is pooled."""
        if self.config.pooling != "last":
            return self.pool(self.hidden(batch), batch)
        last = self.config.genes
        return self.encode(self.gene(self.value(batch["values"])), queries=slice(last, last + 1))[:, 0]


_GENE_ORDER = "4c09ba1912e184682fe5e7f32e2b443bdfb7883d0d0191551b38c6c2f155600f"


def read_tensors(path: Path) -> dict[str, Any]:
    """A checkpoint as a dictionary.

    Raises
    ------
    ValueError
        The file is damaged or no dictionary.
    """
    state = read_state(path)
    if not isinstance(state, Mapping):
        msg = f"{path} should hold a dictionary of tensors, found {type(state).__name__}."
        raise ValueError(msg)
    return dict(state)


def read_genes(files: Mapping[str, Path], wanted: str) -> list[str]:
    """Gene names in model order: the lines of the file `vocab`, or the `var_names` of the h5ad `reference`.

    Raises
    ------
    FileNotFoundError
        There is neither.
    """
    if "vocab" in files:
        return [line.strip() for line in files["vocab"].read_text(encoding="utf-8").splitlines() if line.strip()]
    if "reference" not in files:
        msg = (
            f"No list of genes lies beside {files['weights']}, and their order cannot be guessed. Put {wanted}, into "
            "that folder: one name for each row of the gene table, in its order."
        )
        raise FileNotFoundError(msg)
    import h5py
    from anndata.io import read_elem

    with h5py.File(files["reference"], "r") as file:
        return [str(name) for name in read_elem(file["var"]).index]


def check_genes(names: list[str], expected: int, source: object) -> None:
    """Refuse a list of genes that does not belong to a gene table.

    Raises
    ------
    ValueError
        There are more or fewer names than rows, or a name occurs twice.
    """
    if len(names) != expected:
        msg = (
            f"The list of genes has {len(names)} names, but the gene table in {source} has rows for {expected} genes. "
            "Give the list that belongs to this checkpoint."
        )
        raise ValueError(msg)
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        msg = f"The list of genes holds {twice!r} more than once; a gene list of this model has no duplicates."
        raise ValueError(msg)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        msg = f"`{name}` must be one of {choices}, found {value!r}."
        raise ValueError(msg)


def check_range(what: str, values: np.ndarray, stop: int) -> None:
    """Raise ValueError unless all `values` are below `stop` and not negative."""
    if len(values) and not (values.min() >= 0 and values.max() < stop):
        msg = f"Each {what} must lie in 0 ... {stop - 1}, found {values.min()} to {values.max()}. Are these tokens of another model?"
        raise ValueError(msg)
