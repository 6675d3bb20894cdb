"""CellPLM :cite:p:`Wen2024`: cells are the tokens, and linear attention runs over the set of cells given together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.log import warn
from .._core.settings import settings
from .._data import GeneVocab, Tokens, entry_uniforms
from .._data.counts import AlignedCounts
from .._data.product_kernels import sorted_rows, weighted_rows
from .._nn import FlowLayer, SetLayout, run_layers
from ._config import Config, size
from ._driver import evaluating
from ._encoder import Batch, CellEncoder
from ._files import read_json
from ._memory import Limit
from ._network import check_tokens
from ._sets import SetRun, set_codes
from ._weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from anndata import AnnData

    from .._core.kinds import BatchTokens
    from .._data import CountBlock, CountSource

_CELLS_AT_ONCE = 2_048  # larger pieces leave the cache and gain nothing
_UNIFORMS = 1


@dataclass(frozen=True)
class CellPLMConfig(Config):
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

    width: int = size(1024, "enc_hid")
    layers: int = size(4, "enc_layers")
    heads: int = size(8, divides="width")
    ffn_dim: int = size(2048)
    norm_groups: int = size(4, divides="width")
    latent_dim: int = size(512, "post_latent_dim")
    latent: Literal["vae", "gmvae"] = "vae"
    clusters: int = size(16)
    mixture_dim: int = size(512)
    dropout: float = 0.2
    attention_dropout: float = 0.01
    output: Literal["latent", "pre_latent"] = "latent"
    assignment: Literal["argmax", "sample"] = "argmax"

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return self.latent_dim if self.output == "latent" else self.width

    @property
    def sampled(self) -> bool:
        """Whether the cluster of a cell is drawn at random."""
        return self.latent == "gmvae" and self.assignment == "sample"


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

    Config = CellPLMConfig
    set_based: ClassVar[bool] = True
    engines: ClassVar[tuple[str, ...]] = ("torch",)
    reads_values: ClassVar[bool] = True
    min_tokens: int = 0  # a cell without counts is the zero vector before the first layer
    renames: ClassVar[Mapping[str, str]] = {
        r"^embedder\.feat_enc\.emb$": "genes",
        r"^embedder\.extra_linear\.0": "embed_linear",
        r"^embedder\.extra_linear\.3": "embed_norm",
        r"^encoder\.layers": "layers",
        r"self_attn\.(q)uery_projection|self_attn\.(k)ey_projection": r"attn.\1\2",
        r"self_attn\.(v)alue_projection|self_attn\.(o)ut_projection": r"attn.\1\2",
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
    # The decoder, variances, and tensors that upstream's network never reads.
    dropped: ClassVar[tuple[str, ...]] = (
        r"decoder\.",
        r"head\.",
        r"embedder\.(norm0|pe_enc)\.",
        r"latent\.layers\.1\.hid_2sigma\.",
        r"latent\.layers\.1\.inference\.(y_mu|y_var|inference_qzyx\.2\.var)\.",
    )

    def __init__(self, config: CellPLMConfig, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.n_ids = len(vocab)
        self.genes = nn.Parameter(torch.empty(len(vocab), config.width))
        self.embed_linear = nn.Linear(config.width, config.width)
        self.embed_norm = nn.GroupNorm(config.norm_groups, config.width)
        self.drop = nn.Dropout(config.dropout)
        rates = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
        self.layers = nn.ModuleList(
            FlowLayer(config.width, config.heads, config.ffn_dim, **rates) for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.width)
        self.latent: nn.Module
        self.latent = nn.Linear(config.width, config.latent_dim) if config.latent == "vae" else MixtureLatent(config)

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from `*.config.json` and `*.best.ckpt`."""
        weights = files["weights"]
        beside = weights.with_name(weights.name.removesuffix(".best.ckpt") + ".config.json")
        published = read_json(beside if beside.is_file() else files["config"])
        state = read_tensors(weights)
        config = _config(published, state, weights).replace(**options)
        vocab = GeneVocab(published["gene_list"], kind="ensembl", duplicates="first")
        model = cls.build(config, vocab, state, source=weights)
        if (stated := published.get("out_dim", len(vocab))) != len(vocab):
            msg = (
                f"The configuration of {weights} says out_dim={stated!r}, but its gene_list has {len(vocab)} genes; expected "
                "the same number. Genes are missing: take the published files."
            )
            raise ValueError(msg)
        return model

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """As many made-up names as the published gene list has."""
        return GeneVocab([f"ENSG{i:011d}" for i in range(19_374)], kind="ensembl", duplicates="first")

    def tokenize_block(self, block: CountBlock, seed: int) -> Tokens:
        """The genes of each cell with their raw counts, and uniform numbers where clusters are sampled."""
        cells = {}
        if self.config.sampled:
            n, clusters = len(block), self.config.clusters
            numbers = np.tile(np.arange(clusters, dtype=np.int32), n)
            uniforms = entry_uniforms(np.arange(n + 1) * clusters, numbers, block.streams(seed), _UNIFORMS)
            cells["uniforms"] = uniforms.reshape(n, clusters).astype(np.float32)
        return Tokens(block.indptr, block.gene_ids, block.counts, cells)

    def collate(self, tokens: Tokens) -> Batch:
        """CSR rows `indptr`, `ids`, `values`, and the set of each cell (`sets`): the cells of a batch see each other."""
        check_tokens(self, tokens)
        sets = np.asarray(tokens.cells.get("sets", np.zeros(len(tokens), dtype=np.int64)))
        batch = {
            "indptr": torch.from_numpy(tokens.indptr),
            "ids": torch.from_numpy(tokens.ids.astype(np.int64)),
            "values": torch.from_numpy(np.asarray(tokens.values, dtype=np.float32)),
            "sets": torch.from_numpy(sets.astype(np.int64)),
        }
        if self.config.sampled:
            if "uniforms" not in tokens.cells:
                msg = "`assignment='sample'` needs `uniforms` of shape (n_cells, clusters) in `Tokens.cells`."
                raise ValueError(msg)
            batch["uniforms"] = torch.from_numpy(np.asarray(tokens.cells["uniforms"], dtype=np.float32))
        return batch

    def sizes(self, tokens: Tokens) -> np.ndarray:
        """A cell is one token, however many genes it has."""
        return np.ones(len(tokens), dtype=np.int64)

    def gene_sums(self, batch: Batch) -> Tensor:
        """Rows of the gene table weighted by log1p of the counts, shape `(n_cells, width)`."""
        values = torch.log1p(batch["values"]).to(self.genes.dtype)
        learning = torch.is_grad_enabled() and self.genes.requires_grad
        if learning or self.genes.device.type != "cpu" or self.genes.dtype != torch.float32:
            rows = (batch["ids"], self.genes, batch["indptr"])
            return F.embedding_bag(*rows, mode="sum", per_sample_weights=values, include_last_offset=True)
        sorted_ = sorted_rows(batch["indptr"].numpy(), batch["ids"].numpy(), values.numpy())
        table = self.genes.detach().contiguous().numpy()
        return torch.from_numpy(weighted_rows(*sorted_, table, threads=torch.get_num_threads()))

    def inputs(self, batch: Batch) -> Tensor:
        """Input of the first layer, shape `(n_cells, width)`; each cell on its own."""
        return self.embed_norm(self.drop(F.relu(self.embed_linear(self.gene_sums(batch)))))

    def hidden(self, batch: Batch, leading: int | None = None) -> Tensor:
        """Normalized output of the last layer for every cell, shape `(n_cells, width)`."""
        return self.among(self.inputs(batch), batch["sets"])

    def among(self, x: Tensor, sets: Tensor) -> Tensor:
        """All layers and the final norm, over cells that see the others of their set."""
        layout = SetLayout.of(sets)
        return self.final_norm(run_layers(self.layers, x, layout, gradient_checkpointing=self.gradient_checkpointing))

    def pool(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Apply the latent layer, shape `(n_cells, dim)`."""
        if self.config.output == "pre_latent":
            return hidden
        return self.latent(hidden, batch["uniforms"]) if self.config.sampled else self.latent(hidden)

    def embed(self, data: AnnData | CountSource | AlignedCounts, **options: Any) -> np.ndarray:
        """Embed all cells, in their order, see :meth:`CellEncoder.embed`; `groups` names the set of each."""
        if options.get("groups") is None and not isinstance(data, AlignedCounts) and (n := data.n_obs) > 1:
            warn(f"CellPLM embeds cells as a set; without `groups` all {n} cells form one set.")
        return super().embed(data, **options)

    def embed_blocks(
        self,
        blocks: Iterable[tuple[int, Tokens]],
        n_cells: int,
        groups: np.ndarray | None,
        batch_tokens: BatchTokens,
        advance: Callable[[int], Any],
    ) -> np.ndarray:
        """Embed blocks of cells, whose sets may run over the borders of blocks; larger sets than a batch are streamed."""
        most = min(_CELLS_AT_ONCE, settings.batch_tokens if batch_tokens == "auto" else batch_tokens)
        run = SetRun(self, n_cells, Limit(most, self.device))
        with evaluating(self), torch.inference_mode():
            for start, tokens in blocks:
                run.add(start, tokens)
            return run.finish(set_codes(run.sets if groups is None else groups, n_cells), advance)


def _config(published: dict[str, Any], state: Mapping[str, Tensor], source: object) -> CellPLMConfig:
    """Sizes from the published configuration, checked against the names of the weights."""
    sizes = CellPLMConfig.read_published(published, source=f"The configuration of {source}")
    latent, norm = str(published.get("latent_mod")), published.get("norm", "groupnorm")
    if norm != "groupnorm" or latent not in ("vae", "gmvae") or not published.get("gene_list"):
        msg = (
            f"The configuration of {source} is not one of CellPLM: expected norm 'groupnorm', latent_mod 'vae' or 'gmvae' "
            f"and a gene_list, found {norm!r:.40}, {latent!r:.40} and {'a' if published.get('gene_list') else 'no'} gene_list."
        )
        raise ValueError(msg)
    genes = published["gene_list"]
    if not isinstance(genes, list) or not all(isinstance(name, str) for name in genes) or len(set(genes)) < len(genes):
        msg = f"The gene_list in the configuration of {source} must name each gene once; take the published file."
        raise ValueError(msg)
    found = "gmvae" if any(name.startswith("latent.layers.1.inference.") for name in state) else "vae"
    if found != latent:
        msg = f"The configuration of {source} says latent_mod={latent!r}, but its tensors are those of {found!r}. Take both files from one checkpoint."
        raise ValueError(msg)
    tensors = {
        "ffn_dim": "encoder.layers.0._ff_block.0.weight",
        "clusters": "latent.layers.1.inference.inference_qyx.0.logits.weight",
        "mixture_dim": "latent.layers.1.inference.inference_qzyx.0.weight",
    }
    sizes |= {name: len(state[tensor]) for name, tensor in tensors.items() if tensor in state and state[tensor].ndim}
    return CellPLMConfig.stated(f"The configuration of {source}", **sizes, latent=latent)
