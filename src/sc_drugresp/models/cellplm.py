"""CellPLM :cite:p:`Wen2024`: cells are the tokens, and linear attention runs over the set of cells given together."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.device import resolve_device
from .._core.log import warn
from .._core.progress import progress_bar
from .._core.settings import settings
from .._data import GeneVocab, Tokens, entry_uniforms, token_batches
from .._data.product_kernels import weighted_rows
from .._nn import FlowLayer, SetLayout
from ._encoder import Batch, CellEncoder, _aligned
from ._weights import flat_state, read_json, read_state, rename

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._data import CountBlock, CountSource
    from .._data.counts import AlignedCounts
    from .._data.vocab import GeneMode

_CELLS_AT_ONCE = 2_048  # larger pieces leave the cache and gain nothing
_IN_MEMORY = 2**31  # bytes of hidden states; more are kept in a temporary file
_UNIFORMS = 1


@dataclass(frozen=True)
class CellPLMConfig:
    """Sizes and options of CellPLM.

    Parameters
    ----------
    width, layers, heads, ffn_dim, norm_groups
        Sizes of the encoder.
    latent_dim, latent
        Width and kind of the latent layer: one Gaussian (`'vae'`) or a mixture (`'gmvae'`).
    clusters, mixture_dim
        Sizes of the mixture.
    dropout, attention_dropout
        Dropout while training.
    output
        `'latent'` is upstream's embedding; `'pre_latent'` the normalized output of the encoder, which is wider.
    assignment
        How a mixture assigns a cell to a cluster: `'argmax'` is deterministic; `'sample'` draws it, as upstream does,
        from the cell's own random stream or from `uniforms` in :attr:`Tokens.cells`.
    """

    width: int = 1024
    layers: int = 4
    heads: int = 8
    ffn_dim: int = 2048
    norm_groups: int = 4
    latent_dim: int = 512
    latent: Literal["vae", "gmvae"] = "vae"
    clusters: int = 16
    mixture_dim: int = 512
    dropout: float = 0.2
    attention_dropout: float = 0.01
    output: Literal["latent", "pre_latent"] = "latent"
    assignment: Literal["argmax", "sample"] = "argmax"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("latent", ("vae", "gmvae")),
            ("output", ("latent", "pre_latent")),
            ("assignment", ("argmax", "sample")),
        ):
            if getattr(self, name) not in allowed:
                msg = f"CellPLM: `{name}` must be one of {allowed}, found {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.width % self.heads or self.width % self.norm_groups:
            msg = (
                f"CellPLM: {self.width} channels cannot be split into {self.heads} heads and {self.norm_groups} groups."
            )
            raise ValueError(msg)

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return self.latent_dim if self.output == "latent" else self.width


class MixtureLatent(nn.Module):
    """Mean of a Gaussian-mixture posterior, given a hard assignment to one cluster."""

    def __init__(self, config: CellPLMConfig) -> None:
        super().__init__()
        self.logits = nn.Linear(config.width, config.clusters)
        self.mix = nn.Linear(config.width + config.clusters, config.mixture_dim)
        self.mu = nn.Linear(config.mixture_dim, config.latent_dim)

    def forward(self, x: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """`uniforms` of shape `(n_cells, clusters)` samples the cluster by the Gumbel trick; `None` takes the likeliest."""
        logits = self.logits(x)
        if uniforms is not None:
            logits = logits - torch.log(-torch.log(uniforms.to(logits.dtype) + 1e-20) + 1e-20)
        cluster = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(x.dtype)
        if torch.is_grad_enabled():  # straight through: the gradient of the soft assignment
            soft = logits.softmax(-1)
            cluster = cluster + (soft - soft.detach())
        return self.mu(F.relu(self.mix(torch.cat([x, cluster], -1))))


class CellPLM(CellEncoder):
    """Cell language model beyond single cells :cite:p:`Wen2024`.

    The embedding of a cell depends on the other cells of its set. Name the sets with `groups` (one code per cell, for
    example its sample): without it all cells form one set. Sets of any size are computed exactly in bounded memory.

    In :class:`Tokens`, `ids` are rows of the gene table and `values` raw counts; `cells["sets"]` may hold the code of
    each cell's set and `cells["uniforms"]`, shape `(n_cells, clusters)`, the numbers that `assignment='sample'` uses.
    """

    Config: ClassVar[type] = CellPLMConfig
    set_based: ClassVar[bool] = True

    def __init__(self, config: CellPLMConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.genes = nn.Parameter(torch.empty(len(vocab), config.width))
        self.embed_linear = nn.Linear(config.width, config.width)
        self.embed_norm = nn.GroupNorm(config.norm_groups, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            FlowLayer(
                config.width,
                config.heads,
                config.ffn_dim,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
            for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.latent: nn.Module
        self.latent = nn.Linear(config.width, config.latent_dim) if config.latent == "vae" else MixtureLatent(config)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> CellPLM:
        """Build from `*.config.json` and `*.best.ckpt`."""
        weights = files["weights"]
        beside = weights.with_name(weights.name.removesuffix(".best.ckpt") + ".config.json")
        published = read_json(beside if beside.is_file() else files["config"])
        state = flat_state(read_state(weights), source=weights)
        config = cls.configure(_sizes(published, state, weights), options)
        vocab = GeneVocab([str(name) for name in published["gene_list"]], kind="ensembl", duplicates="first")
        return cls.build(config, vocab, state, source=weights)  # type: ignore[return-value]

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """As many made-up names as the published gene list has."""
        return GeneVocab([f"ENSG{i:011d}" for i in range(19_374)], kind="ensembl", duplicates="first")

    @staticmethod
    def remap(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names to ours; the decoder, variances, and what upstream's network never reads are dropped."""
        return rename(state, RENAMES, drop=DROPPED)

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """Genes and raw counts of each cell, as they are."""
        cells = {}
        if self.config.latent == "gmvae" and self.config.assignment == "sample":
            n, clusters = len(block), self.config.clusters
            numbers = np.tile(np.arange(clusters, dtype=np.int32), n)
            uniforms = entry_uniforms(np.arange(n + 1) * clusters, numbers, block.streams(seed), _UNIFORMS)
            cells["uniforms"] = uniforms.reshape(n, clusters).astype(np.float32)
        return Tokens(block.indptr, block.gene_ids, block.counts, cells)

    def collate(self, tokens: Tokens) -> Batch:
        """CSR rows `indptr`, `ids`, `values`, and the set of each cell (`sets`): the cells of a batch see each other."""
        if tokens.values is None:
            msg = "CellPLM needs the raw count of each gene in `Tokens.values`."
            raise ValueError(msg)
        if len(tokens.ids) and not 0 <= tokens.ids.min() <= tokens.ids.max() < len(self.vocab):
            msg = f"Token ids must lie in [0, {len(self.vocab)}), the rows of the gene table; found {tokens.ids.max()}."
            raise ValueError(msg)
        sets = np.asarray(tokens.cells.get("sets", np.zeros(len(tokens), dtype=np.int64)))
        batch = {
            "indptr": torch.from_numpy(tokens.indptr),
            "ids": torch.from_numpy(tokens.ids.astype(np.int64)),
            "values": torch.from_numpy(np.asarray(tokens.values, dtype=np.float32)),
            "sets": torch.from_numpy(sets.astype(np.int64)),
        }
        if "uniforms" in tokens.cells:
            batch["uniforms"] = torch.from_numpy(np.asarray(tokens.cells["uniforms"], dtype=np.float32))
        return batch

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """A cell is one token, however many genes it has."""
        return np.ones(len(tokens), dtype=np.int64)

    def embeddable(self, tokens: Tokens) -> np.ndarray:
        """All cells: one without counts is the zero vector before the first layer."""
        return np.ones(len(tokens), dtype=bool)

    def gene_sums(self, batch: Batch) -> Tensor:
        """Rows of the gene table weighted by log1p of the counts, shape `(n_cells, width)`."""
        values = torch.log1p(batch["values"]).to(self.genes.dtype)
        learning = torch.is_grad_enabled() and self.genes.requires_grad
        if learning or self.genes.device.type != "cpu" or self.genes.dtype != torch.float32:
            return F.embedding_bag(
                batch["ids"],
                self.genes,
                batch["indptr"],
                mode="sum",
                per_sample_weights=values,
                include_last_offset=True,
            )
        rows = _sorted_rows(batch["indptr"].numpy(), batch["ids"].numpy(), values.numpy())
        table = self.genes.detach().contiguous().numpy()
        return torch.from_numpy(weighted_rows(*rows, table, threads=torch.get_num_threads()))

    def embed_cells(self, batch: Batch) -> Tensor:
        """Input of the first layer, shape `(n_cells, width)`; each cell on its own."""
        return self.embed_norm(self.drop(F.relu(self.embed_linear(self.gene_sums(batch)))))

    def hidden(self, batch: Batch) -> Tensor:
        """Output of the last layer for every cell, shape `(n_cells, width)`."""
        return self._layers(self.embed_cells(batch), batch["sets"])

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Normalize and apply the latent layer, shape `(n_cells, dim)`."""
        x = self.final_norm(hidden)
        if self.config.output == "pre_latent":
            return x
        if self.config.latent == "vae":
            return self.latent(x)
        if self.config.assignment == "argmax":
            return self.latent(x)
        if "uniforms" not in batch:
            msg = "`assignment='sample'` needs `uniforms` of shape (n_cells, clusters) in `Tokens.cells`."
            raise ValueError(msg)
        return self.latent(x, batch["uniforms"])

    def embed(
        self,
        data: AnnData | CountSource | AlignedCounts,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        rng: int = 0,
        groups: np.ndarray | None = None,
        batch_tokens: int | None = None,
        mask_obs: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embed all cells, in their order; see :meth:`CellEncoder.embed`.

        `groups` names the set of each cell. Sets larger than a batch are streamed, with the same result.
        """
        source = _aligned(self, data, layer, genes)
        if groups is None and source.n_obs > 1 and not hasattr(data, "alignment"):
            warn(f"CellPLM embeds cells as a set; without `groups` all {source.n_obs} cells form one set.")
        sets = _set_codes(groups, source.n_obs)
        self.to(resolve_device())
        with progress_bar(total=source.n_obs, desc=self.name or type(self).__name__) as bar:
            return self._embed_sets(self.token_blocks(source, rng), sets, batch_tokens, bar.update)

    def embed_tokens(
        self,
        tokens: Tokens,
        *,
        batch_tokens: int | None = None,
        advance: Any = None,
        groups: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embed tokens; `groups` (or `tokens.cells["sets"]`) names the set of each cell, by default one for all.

        Parameters
        ----------
        tokens
            Genes and raw counts of each cell.
        batch_tokens
            Most cells computed at once.
        advance
            Called with the number of cells that were finished.
        groups
            Code of the set of each cell, shape `(n_cells,)`.
        """
        sets = _set_codes(tokens.cells.get("sets") if groups is None else groups, len(tokens))
        size = settings.block_cells
        starts = range(0, len(tokens), size)
        blocks = ((start, tokens.take(np.arange(start, min(start + size, len(tokens))))) for start in starts)
        return self._embed_sets(blocks, sets, batch_tokens, advance or (lambda _: None))

    def _layers(self, x: Tensor, sets: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        layout = SetLayout.of(sets)
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, layout, use_reentrant=False)
            else:
                x = layer(x, layout)
        return x

    def _embed_sets(
        self, blocks: Iterable[tuple[int, Tokens]], sets: np.ndarray, batch_tokens: int | None, advance: Any
    ) -> np.ndarray:
        """Hidden states of all cells first, then one batch of sets (or one large set, in pieces) after another."""
        most = min(_CELLS_AT_ONCE, settings.batch_tokens if batch_tokens is None else batch_tokens)
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                states, uniforms = self._first_states(blocks, len(sets), most)
                return self._finish(states, uniforms, sets, most, advance)
        finally:
            self.train(was_training)

    def _first_states(self, blocks: Iterable[tuple[int, Tokens]], n: int, most: int) -> tuple[Tensor, Tensor | None]:
        states = _states(n, self.config.width, self.genes.dtype)
        drawn = self.config.latent == "gmvae" and self.config.assignment == "sample"
        uniforms = torch.empty(n, self.config.clusters) if drawn else None
        for start, tokens in blocks:
            for first in range(0, len(tokens), most):
                batch = self.collate(tokens.take(np.arange(first, min(first + most, len(tokens)))))
                rows = slice(start + first, start + first + len(batch["sets"]))
                states[rows] = self.embed_cells({k: v.to(self.device) for k, v in batch.items()}).to(states.device)
                if uniforms is not None and "uniforms" in batch:
                    uniforms[rows] = batch["uniforms"]
                elif uniforms is not None:
                    self.pool(states[rows], batch)  # says what is missing
        return states, uniforms

    def _finish(self, states: Tensor, uniforms: Tensor | None, sets: np.ndarray, most: int, advance: Any) -> np.ndarray:
        out = np.empty((len(sets), self.dim), dtype=np.float32)
        order = np.argsort(sets, kind="stable")
        sizes = np.bincount(sets) if len(sets) else np.zeros(0, dtype=np.int64)
        members = np.split(order, np.cumsum(sizes)[:-1])
        for rows in (members[i] for i in np.flatnonzero(sizes > most)):
            self._stream(states, torch.from_numpy(rows), most, advance)
            for piece in np.array_split(rows, -(-len(rows) // most)):
                out[piece] = self._pooled(states[torch.from_numpy(piece)].to(self.device), uniforms, piece)
        small = np.flatnonzero((sizes > 0) & (sizes <= most))
        for chosen in token_batches(sizes[small], most, max_waste=0.25):
            rows = np.concatenate([members[i] for i in small[chosen]])
            x = states[torch.from_numpy(rows)].to(self.device)
            x = self._layers(x, torch.from_numpy(sets[rows]).to(self.device))
            out[rows] = self._pooled(x, uniforms, rows)
            advance(len(rows))
        return out

    def _stream(self, states: Tensor, rows: Tensor, most: int, advance: Any) -> None:
        done = 0
        for i, layer in enumerate(self.layers, start=1):
            layer.stream(states, rows, most, self.device)  # type: ignore[operator]
            advance(len(rows) * i // len(self.layers) - done)
            done = len(rows) * i // len(self.layers)

    def _pooled(self, x: Tensor, uniforms: Tensor | None, rows: np.ndarray) -> np.ndarray:
        batch = {} if uniforms is None else {"uniforms": uniforms[torch.from_numpy(rows)].to(self.device)}
        return self.pool(x, batch).float().cpu().numpy()


def _sizes(published: dict[str, Any], state: Mapping[str, Tensor], source: object) -> CellPLMConfig:
    """Sizes from the published configuration, checked against the names of the weights."""
    try:
        latent, norm = published["latent_mod"], published.get("norm", "groupnorm")
        width, layers, dim = (int(published[name]) for name in ("enc_hid", "enc_layers", "post_latent_dim"))
        published["gene_list"][0]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        msg = f"The configuration beside {source} is not one of CellPLM: {error} is missing or damaged."
        raise ValueError(msg) from error
    if norm != "groupnorm" or latent not in ("vae", "gmvae"):
        msg = f"Expected norm 'groupnorm' and latent_mod 'vae' or 'gmvae' in the configuration of {source}, found {norm!r} and {latent!r}."
        raise ValueError(msg)
    found = "gmvae" if any(name.startswith("latent.layers.1.inference.") for name in state) else "vae"
    if found != latent:
        msg = f"The configuration of {source} says latent_mod={latent!r}, but its tensors are those of {found!r}. Take both files from one checkpoint."
        raise ValueError(msg)
    sizes = {"width": width, "layers": layers, "latent_dim": dim, "latent": latent}
    for name, tensor, axis in (
        ("ffn_dim", "encoder.layers.0._ff_block.0.weight", 0),
        ("clusters", "latent.layers.1.inference.inference_qyx.0.logits.weight", 0),
        ("mixture_dim", "latent.layers.1.inference.inference_qzyx.0.weight", 0),
    ):
        if tensor in state:
            sizes[name] = state[tensor].shape[axis]
    return CellPLMConfig(**sizes)


def _sorted_rows(indptr: np.ndarray, ids: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same rows with increasing ids; nothing is copied when they are sorted."""
    falls = np.flatnonzero(ids[1:] < ids[:-1]) + 1
    if np.isin(falls, indptr).all():
        return indptr, ids, values
    order = np.lexsort((ids, np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))))
    return indptr, ids[order], values[order]


def _set_codes(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Sets numbered from 0, shape `(n,)`, int64."""
    if groups is None:
        return np.zeros(n, dtype=np.int64)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        msg = f"`groups` must have one entry for each of {n} cells, found shape {groups.shape}."
        raise ValueError(msg)
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        msg = "`groups` has missing values; every cell must belong to a set."
        raise ValueError(msg)
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _states(n: int, width: int, dtype: torch.dtype) -> Tensor:
    """Room for the hidden states of all cells: memory, or a temporary file when there are many."""
    if n * width * dtype.itemsize <= _IN_MEMORY or dtype != torch.float32:
        return torch.empty(n, width, dtype=dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the name of the file
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=(n, width)))


RENAMES = {
    r"^embedder\.feat_enc\.emb$": "genes",
    r"^embedder\.extra_linear\.0": "embed_linear",
    r"^embedder\.extra_linear\.3": "embed_norm",
    r"^encoder\.layers": "layers",
    r"self_attn\.(query|key|value|out)_projection": r"attn.\1",
    r"attn\.query": "attn.q",
    r"attn\.key": "attn.k",
    r"attn\.value": "attn.v",
    r"attn\.out": "attn.o",
    r"_ff_block\.0": "up",
    r"_ff_block\.3": "down",
    r"(layers\.\d+)\.norm1": r"\1.attn_norm",
    r"(layers\.\d+)\.norm2": r"\1.ffn_norm",
    r"^pre_latent_norm\.norm": "final_norm",
    r"^latent\.layers\.1\.hid_2mu": "latent",
    r"^latent\.layers\.1\.inference\.inference_qyx\.0\.logits": "latent.logits",
    r"^latent\.layers\.1\.inference\.inference_qzyx\.0": "latent.mix",
    r"^latent\.layers\.1\.inference\.inference_qzyx\.2\.mu": "latent.mu",
}
DROPPED = (
    r"decoder\.",
    r"head\.",
    r"embedder\.(norm0|pe_enc)\.",
    r"latent\.layers\.1\.hid_2sigma\.",
    r"latent\.layers\.1\.inference\.(y_mu|y_var|inference_qzyx\.2\.var)\.",
)
