"""The trunk that scBERT and CellLM share: a Performer over genes and their expression classes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .._data import GeneVocab
from .._nn import PerformerLayer, run_layers
from ._config import Config, size
from ._encoder import CellEncoder
from ._files import check_file, read_lines
from ._weights import flat_state, innermost, listed_layers, read_shapes, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PREFIX = r"(?:module\.|encoder\.)*"
_BUFFERS = ("projection_matrix", "calls_since_last_redraw")


@dataclass(frozen=True)
class PerformerConfig(Config):
    """Sizes of a Performer over genes. `heads * head_dim` need not be `dim`."""

    dim: int = size(200)
    layers: int = size(6)
    heads: int = size(10)
    head_dim: int = size(64)
    features: int = size(266)
    ffn_dim: int = size(800)
    n_tokens: int = size(7)
    genes: int = size(16_906)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, specials: int, source: object) -> Self:
        """Read every size from tensors under our names; `specials` rows of the gene table do not stand for genes.

        Raises
        ------
        ValueError
            The tensors that tell the sizes are not there: another model.
        """
        places = {
            "dim": ("value.weight", 1),
            "n_tokens": ("value.weight", 0),
            "heads": ("layers.0.attn.q.weight", 0),
            "features": ("layers.0.attn.projection", 0),
            "head_dim": ("layers.0.attn.projection", 1),
            "ffn_dim": ("layers.0.up.weight", 0),
            "genes": ("gene.table", 0),
        }
        sizes = read_shapes(state, places, model=cls._title(), source=source)
        sizes["heads"] //= sizes["head_dim"]
        sizes["genes"] -= specials
        return cls.stated(source, **sizes)


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
    """Gene vector plus class vector, pre-norm layers with FAVOR+ attention, a final norm.

    Attributes
    ----------
    specials, last_rows
        Rows of the gene table that do not stand for genes, and the number that fills each of them.
    gene_lists
        Files with the names of the genes, for error messages.
    """

    engines: ClassVar[tuple[str, ...]] = ("torch",)
    specials: ClassVar[int] = 1
    last_rows: ClassVar[tuple[float, ...]] = (0.0,)
    gene_lists: ClassVar[str]
    renames: ClassVar[Mapping[str, str]] = {
        rf"^{_PREFIX}": "",
        r"^norm\.": "final_norm.",
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
    # The masked-token head, and a counter of the redraw of random directions, which never happens here.
    dropped: ClassVar[tuple[str, ...]] = (rf"{_PREFIX}to_out\.", rf"{_PREFIX}performer\.calls_since_last_redraw$")

    def __init__(self, config: Any, vocab: GeneVocab) -> None:
        super().__init__(config, vocab)
        self.value = nn.Embedding(config.n_tokens, config.dim)
        self.gene = GeneTable(config.genes + self.specials, config.dim)
        self.layers = nn.ModuleList(
            PerformerLayer(config.dim, config.heads, config.head_dim, config.features, config.ffn_dim)
            for _ in range(config.layers)
        )
        self.final_norm = nn.LayerNorm(config.dim)

    @classmethod
    def example_vocab(cls, config: Any) -> GeneVocab:
        """As many made-up names as the gene table has."""
        return GeneVocab([f"GENE{i}" for i in range(config.genes)], duplicates="first")

    @classmethod
    def from_files(cls, files: Mapping[str, Path], **options: Any) -> Self:
        """Build from the weights, which determine the sizes, and a list of the genes beside them.

        Raises
        ------
        FileNotFoundError
            There is no list of genes.
        ValueError
            The files are damaged, of another model, or do not belong together.
        """
        content = read_state(files["weights"])
        state = flat_state(content, source=files["weights"])
        translated = cls.translate(state, source=files["weights"])
        config: Any = cls.Config.from_state(translated, specials=cls.specials, source=files["weights"])  # type: ignore[attr-defined]
        stated = (
            "config" in files or bool(listed_layers(innermost(content))) or _trained(content, state, files["weights"])
        )
        if "config" in files:
            config = cls.with_published(config, files["config"])
        vocab = cls.vocabulary(read_genes(files, config.genes, cls.gene_lists))
        model = cls.build(config.replace(**options), vocab, state, source=files["weights"])
        model.depth_stated = stated
        _check_tables(model, state, files["weights"])
        return model

    @classmethod
    def with_published(cls, config: Any, path: Path) -> Any:
        """Complete the sizes from a published configuration; by default there is nothing to add."""
        return config

    @classmethod
    def vocabulary(cls, names: list[str]) -> GeneVocab:
        """The vocabulary for the rows of the gene table."""
        return GeneVocab(names, duplicates="first")

    def encode(self, x: Tensor, *inputs: Tensor | None, queries: slice | None = None) -> Tensor:
        """All layers and the final norm; the last layer computes the positions `queries` only."""
        x = run_layers(self.layers, x, *inputs, queries=queries, gradient_checkpointing=self.gradient_checkpointing)
        return self.final_norm(x)


def _check_tables(model: PerformerEncoder, state: Mapping[str, Tensor], path: Path) -> None:
    """Check that neither the table of genes nor that of classes lacks a row or has one too many.

    Raises
    ------
    ValueError
        The rows that stand for no gene are not the last ones, or the masked-token head knows other classes.
    """
    table = model.gene.table[model.config.genes :]
    if not torch.equal(table, torch.tensor(model.last_rows, dtype=table.dtype)[:, None].expand_as(table)):
        msg = (
            f"{path}: the last {model.specials} rows of the gene table pos_emb.emb.weight {tuple(model.gene.table.shape)} "
            f"must be all {' and '.join(map(str, model.last_rows))}, found other numbers. Rows are missing or were moved: "
            "download the file again."
        )
        raise ValueError(msg)
    head = next((x for name, x in state.items() if re.fullmatch(rf"{_PREFIX}to_out\.weight", name)), None)
    classes = model.value.weight
    if head is not None and head.ndim == 2 and head.shape != classes.shape:
        msg = (
            f"{path}: token_emb.weight has the shape {tuple(classes.shape)}, expected that of the head to_out.weight, "
            f"{tuple(head.shape)}. A table lacks rows: download the file again."
        )
        raise ValueError(msg)


def _trained(content: Any, state: Mapping[str, Tensor], path: Path) -> bool:
    """Whether the state of an optimizer beside the tensors tells that none of them is missing.

    Raises
    ------
    ValueError
        It had more parameters than there are.
    """
    optimizer = content.get("optimizer_state_dict") if isinstance(content, dict) else None
    groups = optimizer.get("param_groups") if isinstance(optimizer, dict) else None
    if not isinstance(groups, list) or not groups:
        return False
    listed = [group.get("params") if isinstance(group, dict) else None for group in groups]
    expected = sum(len(names) for names in listed if isinstance(names, list))
    found = sum(not name.endswith(_BUFFERS) for name in state)
    if expected > found:
        msg = (
            f"{path} holds {found} parameters, but its optimizer had {expected}: tensors are missing, perhaps of a whole "
            "layer. The file is incomplete: download it again."
        )
        raise ValueError(msg)
    return expected == found


def read_genes(files: Mapping[str, Path], expected: int, wanted: str) -> list[str]:
    """Gene names in model order: the lines of the file `vocab`, or the `var_names` of the h5ad `reference`.

    Raises
    ------
    FileNotFoundError
        There is neither; `wanted` says what would do.
    ValueError
        The list is not that of a gene table with rows for `expected` genes.
    """
    path = files.get("vocab") or files.get("reference")
    if "vocab" in files:
        names = read_lines(files["vocab"])
    elif "reference" in files:
        import h5py
        from anndata.io import read_elem

        try:
            with h5py.File(check_file(files["reference"]), "r") as file:
                names = [str(name) for name in read_elem(file["var"]).index]
        except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            msg = f"{path} is not a readable .h5ad file ({str(error).splitlines()[0]}). Download it again, or put {wanted}."
            raise ValueError(msg) from error
    else:
        msg = (
            f"No list of genes lies beside {files['weights']}, and their order cannot be guessed. Put {wanted}, into "
            "that folder: one name for each row of the gene table, in its order."
        )
        raise FileNotFoundError(msg)
    if len(names) != expected:
        msg = (
            f"{path}: the list of genes has {len(names)} names, but the gene table in {files['weights']} has rows for "
            f"{expected} genes. Give the list that belongs to this checkpoint."
        )
        raise ValueError(msg)
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        msg = f"{path}: the list of genes holds {twice!r} more than once; a gene list of this model has no duplicates. Take the published list."
        raise ValueError(msg)
    return names
