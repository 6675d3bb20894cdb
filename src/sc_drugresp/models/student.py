"""Students: small networks that give the embedding of a teacher, made by :func:`~sc_drugresp.models.distill`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy import sparse

from .._core.arguments import checked
from .._core.progress import progress_bar
from .._data.counts import AlignedCounts, CountSource, read_counts
from .._data.vocab import GeneVocab
from ._profiles import matrix_of, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    import pandas as pd
    from anndata import AnnData

    from .._data import CountBlock
    from .._data.vocab import GeneMode
    from ._student_network import StudentNetwork

BATCH = 512
"""Rows of every product of matrices, the last one filled up: how many cells there are does not change how they are added up."""


@dataclass
class Student:
    """A small network that turns counts into the embedding of another model, its teacher.

    Made by :func:`~sc_drugresp.models.distill` and read by :func:`~sc_drugresp.models.load`. It never passes for its
    teacher: its `name` is `student(<teacher>)`, and :func:`~sc_drugresp.tl.embed` writes `X_student_<teacher>`. The idea is
    that of :cite:t:`Hinton2015`.

    Parameters
    ----------
    genes
        Names of the genes that it reads.
    gene_kind
        `'symbol'` or `'ensembl'`.
    arrays
        Weights and scales by name, float32.
    teacher
        `name`, `sha256` and `source` of the checkpoint, `license`, `commercial` and `publisher` of its weights, `options`.
    fidelity
        What was measured on samples that took no part in training, see :meth:`fidelity_df`, and the verdict.
    data
        The cells it learned from: numbers of cells and samples, samples by part, hash of the gene names, share of the
        counts in the genes that it reads.
    training
        Settings, and one row per epoch.

    Attributes
    ----------
    expects, aligns_genes, needs_fit, tunable, set_based
        What it can do, as for every embedder that :func:`~sc_drugresp.models.load` returns.
    """

    genes: list[str]
    gene_kind: str
    arrays: dict[str, np.ndarray]
    teacher: dict[str, Any]
    fidelity: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    expects: ClassVar[str] = "counts"
    aligns_genes: ClassVar[bool] = True
    needs_fit: ClassVar[bool] = False
    tunable: ClassVar[bool] = False
    set_based: ClassVar[bool] = False
    blockwise: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`student(<teacher>)`."""
        return f"student({self.teacher['name']})"

    @property
    def slot(self) -> str:
        """Base name of the slots that `tl.embed` writes."""
        return f"student.{self.teacher['name']}"

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return len(self.arrays["target_mean"])

    @property
    def usual_coverage(self) -> float:
        """Share of the counts that lay in its genes when it was trained."""
        return float(self.data.get("counts_covered", 1.0))

    @cached_property
    def vocab(self) -> GeneVocab:
        """The genes that it reads."""
        return GeneVocab(self.genes, kind=self.gene_kind)  # type: ignore[arg-type]

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """Name and hash of its own weights, and of those of its teacher."""
        from ._student_files import WEIGHTS, packed

        return {
            "name": self.name,
            "file": WEIGHTS,
            "sha256": hashlib.sha256(packed(self.arrays)).hexdigest(),
            "source": "local",
            "teacher": self.teacher["name"],
            "teacher_sha256": self.teacher["sha256"],
        }

    def report(self) -> dict[str, Any]:
        """What is noted beside an embedding: whose it is not, under which terms, and how close it comes."""
        score = self.fidelity["rows"]["student"]
        known = {key: score[key] for key in ("cosine", "cosine_p05", "neighbors_kept") if score[key] is not None}
        told = {key: self.teacher[key] for key in ("name", "sha256", "license", "commercial", "publisher")}
        found = {"verdict": self.fidelity["verdict"], "held_out_samples": self.fidelity["n_samples"]}
        return {"teacher": told | known | found}

    def read(self, data: AnnData, layer: str | None = None) -> CountSource:
        """Find the raw counts."""
        return read_counts(data, layer=layer, expect="counts")

    @checked
    def embed(
        self,
        data: AnnData | CountSource | AlignedCounts,
        *,
        layer: str | None = None,
        genes: GeneMode = "auto",
        **_: Any,
    ) -> np.ndarray:
        """Embed all cells, in their order; a cell's embedding depends on its counts alone.

        Parameters
        ----------
        data
            Annotated data, or a reader made from it.
        layer
            Matrix with raw counts; `None` finds it.
        genes
            `'auto'` matches genes by symbol, Ensembl id and aliases, `'exact'` by their names alone.

        Returns
        -------
        Array of shape `(n_cells, dim)`, float32; NaN rows for cells without a count in its genes.

        Raises
        ------
        ValueError
            There are no raw counts, or none of the genes is known.
        """
        if isinstance(data, AlignedCounts):
            aligned = data
        else:
            source = data if isinstance(data, CountSource) else self.read(data, layer)
            aligned = source.align(self.vocab, genes)
        if not aligned.alignment.matched.any():
            msg = f"None of the genes is known to {self.name}, which reads {self.gene_kind} names such as {self.genes[0]!r}."
            raise ValueError(msg)
        out = np.empty((aligned.n_obs, self.dim), dtype=np.float32)
        with progress_bar(total=aligned.n_obs, desc=self.name) as bar:
            for start, profiles in read_profiles(aligned, len(self.genes)):
                out[start : start + profiles.shape[0]] = self.embed_profiles(profiles)
                bar.update(profiles.shape[0])
        return out

    def embed_block(self, block: CountBlock) -> np.ndarray:
        """Embed some cells, seen through the genes of the student, shape `(n_cells, dim)`, float32."""
        return self.embed_profiles(profiles_of(block, len(self.genes)))

    def embed_profiles(self, profiles: sparse.csr_matrix) -> np.ndarray:
        """Embed rows as :func:`read_profiles` yields them, some hundreds at a time."""
        import torch

        from .._core.device import resolve_device

        where, out = resolve_device(), np.empty((profiles.shape[0], self.dim), dtype=np.float32)
        network = self._network.to(where)
        dense = np.zeros((BATCH, profiles.shape[1]), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(out), BATCH):
                part = profiles[start : start + BATCH]
                n = part.shape[0]
                part.toarray(out=dense[:n])
                dense[n:] = 0
                out[start : start + n] = network(torch.from_numpy(dense).to(where))[:n].cpu().numpy()
        out[without_genes(profiles)] = np.nan
        return out

    @cached_property
    def _network(self) -> StudentNetwork:
        from ._student_network import StudentNetwork

        return StudentNetwork.from_arrays(self.arrays)

    def redraw(self, seed: int = 0) -> Student:
        """The same network with random weights, as at the start of training, for comparison."""
        from ._student_network import StudentNetwork

        network = StudentNetwork.from_arrays(self.arrays)
        network.draw(seed)
        return Student(
            self.genes, self.gene_kind, network.arrays(), self.teacher, self.fidelity, self.data, self.training
        )

    def fidelity_df(self) -> pd.DataFrame:
        """How close the student comes to its teacher on samples that took no part in training.

        Returns
        -------
        One row for the student and for each naive one: `ridge`, a linear regression on the same inputs, and `pca`, as many
        principal components (its cosine is that of a linear regression on them). `cosine` of centered embeddings, the mean over samples, with its 95 %
        interval between samples (`cosine_low`, `cosine_high`), `cosine_p05` (the worst 5 % of the cells are below),
        `r2`, `neighbors_kept` (of the 15 nearest), and, with labels, `auroc` of heads on this embedding and
        `auroc_difference` from heads on that of the teacher with its interval. NaN where there are too few samples.
        """
        import pandas as pd

        return pd.DataFrame.from_dict(self.fidelity["rows"], orient="index").rename_axis("embedding").astype(float)

    @checked
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder of JSON and safetensors, which appears complete or not at all; nothing is pickled.

        Parameters
        ----------
        path
            Folder to make.
        overwrite
            Replace a folder that holds a student.

        Raises
        ------
        FileExistsError
            The path exists and `overwrite` is false, or it is not a saved student.
        """
        from ._student_files import write_student

        write_student(vars(self), path, overwrite=overwrite)

    @classmethod
    @checked
    def load(cls, path: str | PathLike[str]) -> Student:
        """Read a folder written by :meth:`save`; nothing in it is executed.

        Parameters
        ----------
        path
            Folder of the student.

        Returns
        -------
        The student.

        Raises
        ------
        FileNotFoundError
            The folder is not a saved student or is incomplete.
        ValueError
            A file is damaged or was written by another version.
        """
        from ._student_files import read_student

        return cls(**read_student(path))

    def __repr__(self) -> str:
        return f"Student(of {self.teacher['name']!r}, {len(self.genes)} genes, dim={self.dim}, {self.fidelity.get('verdict', '')})"


def read_profiles(
    aligned: AlignedCounts, n_genes: int, rows: np.ndarray | None = None
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Yield `(start, profiles)`: log1p of counts per 10,000 of each gene, and the log1p of all counts of the cell last.

    Teachers differ in whether depth enters their embedding; it is one input among thousands here.
    """
    for block in aligned.blocks(rows=rows):
        yield block.start, profiles_of(block, n_genes)


def profiles_of(block: CountBlock, n_genes: int) -> sparse.csr_matrix:
    """The profiles of one block, see :func:`read_profiles`."""
    depth = sparse.csr_matrix(np.log1p(block.totals, dtype=np.float64).astype(np.float32)[:, None])
    return sparse.hstack([normalize(matrix_of(block, n_genes), "counts", block.totals), depth], format="csr")


def without_genes(profiles: sparse.csr_matrix) -> np.ndarray:
    """Mask of the rows without a count in any gene."""
    return np.asarray(profiles[:, :-1].getnnz(axis=1) == 0)
