"""Embeddings that dask computes when they are asked for: a block of cells is one task, here or on a cluster.

Tasks carry a description of the work (:class:`BlockWork`), never a network. A process that gets a task loads the model from its
own files, compares them with those that the user has, and keeps the model for the next task.
"""

from __future__ import annotations

import platform
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.device import resolve_device
from .._core.hashing import sha256
from .._core.log import logger
from .._core.settings import current, settings
from .._core.versions import package_versions
from .._data.counts import AlignedCounts, CountSource
from .._data.rows import open_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .._core.kinds import BatchTokens, Engine, Precision
    from .._data.vocab import GeneAlignment, GeneMode
    from ..models._embedder import Embedder
    from .job import Job

_MOST_LOADED = 2
_loaded: dict[str, tuple[Embedder, GeneAlignment | None]] = {}
"""Models of this process that were used last, each with the genes of one data set; all threads of a worker share them."""
_turn = threading.Lock()
"""One block at a time in a process: memory stays that of one, and settings belong to the process."""


@dataclass(frozen=True)
class BlockWork:
    """What a task has to know in order to embed a block of cells.

    Parameters
    ----------
    load
        Loads the model; a method of a :class:`~sc_drugresp.tl.Recipe`, which holds name, checkpoint and options.
    key
        Name of the model, with the genes of this data set, among those that a process keeps.
    files
        SHA-256 of each file of the model, by role.
    version
        Version of this package.
    settings
        Settings of the process that asked.
    batch_tokens
        Most padded tokens in a batch; `'auto'` takes `cpu_tokens` on a CPU and the setting elsewhere.
    cpu_tokens
        What the process that asked would take on a CPU: other numbers of threads must not change how cells are batched.
    names, other, origin, kind, transform
        Of the matrix, as in :class:`~sc_drugresp._data.counts.CountSource`.
    columns
        Columns that make up the data set; `None` for all.
    ids
        Token id of each gene, as the process that asked found them; `None` for embedders without a vocabulary.
    genes, seed, engine, precision
        As in :class:`~sc_drugresp._embed.job.Job`.
    """

    load: Callable[[], Embedder]
    key: str
    files: Mapping[str, str]
    version: str
    settings: Mapping[str, Any]
    batch_tokens: BatchTokens
    cpu_tokens: int
    names: np.ndarray
    other: np.ndarray | None
    origin: str
    kind: Any
    transform: Any
    columns: np.ndarray | None
    ids: np.ndarray | None
    genes: GeneMode
    seed: int
    engine: Engine
    precision: Precision

    @classmethod
    def of(cls, job: Job, load: Callable[[], Embedder], batch_tokens: BatchTokens) -> BlockWork:
        """Describe a job."""
        import torch
        from dask.base import tokenize

        from ..models._driver import batch_budget

        source, files = job.source, hashes(job.embedder)
        return cls(
            load=load,
            key=tokenize(load, files, source.names, source.other, job.genes),
            files=files,
            version=package_versions()["sc-drugresp"],
            # A worker never uses the network, and has no terminal.
            settings={**current(), "offline": True, "progress": False, "verbosity": 0},
            batch_tokens=batch_tokens,
            cpu_tokens=batch_budget(torch.device("cpu"), "auto"),
            names=source.names,
            other=source.other,
            origin=source.origin,
            kind=source.kind,
            transform=source.transform,
            columns=source.matrix.var,
            ids=None if job.aligned is None else job.aligned.alignment.ids,
            genes=job.genes,
            seed=job.seed,
            engine=job.engine,
            precision=job.precision,
        )

    def embed(self, block: Any, first: int) -> np.ndarray:
        """Embed a block whose first cell is row `first` of the data set, shape `(n_cells, dim)`, float32."""
        matrix = open_rows(block, None, self.columns)
        source = CountSource(matrix, self.names, self.other, self.origin, self.kind, self.transform, first=first)
        with _turn, settings.override(**self.settings), threads_of_worker():
            embedder, alignment = self._ready(source)
            if alignment is None:
                return embedder.embed(source, rng=self.seed)
            most = self.batch_tokens
            if most == "auto":
                most = self.cpu_tokens if resolve_device().type == "cpu" else settings.batch_tokens
            how: dict[str, Any] = {"engine": self.engine, "precision": self.precision}
            cells = AlignedCounts(source, alignment)
            return embedder.embed(cells, rng=self.seed, batch_tokens=most, genes=self.genes, **how)

    def _ready(self, source: CountSource) -> tuple[Embedder, GeneAlignment | None]:
        """The model and its genes, loaded and compared with those of the process that asked unless this process has them."""
        if self.key not in _loaded:
            self._check_version()
            while len(_loaded) >= _MOST_LOADED:
                del _loaded[next(iter(_loaded))]
            embedder = self._load()
            # Not sent along: some vocabularies learn the words of a data set while they match its genes.
            _loaded[self.key] = embedder, None if self.ids is None else self._align(source, embedder, self.ids)
        _loaded[self.key] = _loaded.pop(self.key)  # the one used last comes last
        return _loaded[self.key]

    def _align(self, source: CountSource, embedder: Embedder, ids: np.ndarray) -> GeneAlignment:
        alignment = source.align(embedder.vocab, self.genes).alignment
        if not np.array_equal(alignment.ids, ids):
            msg = f"{platform.node()} matches the genes of the data to other genes of the model; are its gene tables the same?"
            raise ValueError(msg)
        return alignment

    def _check_version(self) -> None:
        found = package_versions().get("sc-drugresp")
        if found != self.version:
            msg = f"{platform.node()} has sc-drugresp {found}, but {self.version} asked for the embedding. Install one version everywhere."
            raise ValueError(msg)

    def _load(self) -> Embedder:
        try:
            embedder = self.load()
        except FileNotFoundError as error:
            msg = (
                f"{platform.node()} does not have the files of the model, and workers never download. Put them where all "
                "machines see the same path: a shared `settings.cache_dir` (SC_DRUGRESP_CACHE), or the folder of `checkpoint=`. "
                f"{error}"
            )
            raise FileNotFoundError(msg) from error
        found = hashes(embedder)
        wrong = sorted(role for role in self.files.keys() | found.keys() if self.files.get(role) != found.get(role))
        if wrong:
            role = wrong[0]
            msg = (
                f"The {role} file of the model on {platform.node()} is not the one of the process that asked for the embedding: "
                f"expected SHA-256 {self.files.get(role)}, found {found.get(role)}. Copy the files again."
            )
            raise ValueError(msg)
        return embedder


def lazy_embedding(job: Job, load: Callable[[], Embedder], batch_tokens: BatchTokens) -> Any:
    """The embedding as a dask array of shape `(n_cells, dim)`, float32, in blocks of `settings.block_cells` cells.

    Blocks are those that are embedded one after the other in memory, so that the same cells share a batch.
    """
    import dask

    cells = job.source.matrix.matrix
    if job.source.matrix.obs is not None:
        cells = cells[job.source.matrix.obs]
    if cells.numblocks[1] > 1:
        logger.info(
            "%s is cut into %d chunks of genes: each task gathers its rows from all of them; chunks of whole rows move less",
            job.source.origin, cells.numblocks[1],
        )  # fmt: skip
    cells = cells.rechunk((settings.block_cells, -1))
    work = BlockWork.of(job, load, batch_tokens)
    token = dask.base.tokenize(work)
    return cells.map_blocks(
        embed_rows,
        dask.delayed(work, name=f"embedder-{token}"),  # sent to each worker once, not with each task
        name=f"embed-{dask.base.tokenize(cells, token)}",
        chunks=(cells.chunks[0], (job.embedder.dim,)),
        dtype=np.float32,
        meta=np.empty((0, 0), dtype=np.float32),
    )


def embed_rows(block: Any, work: BlockWork, block_info: Mapping[int, Any]) -> np.ndarray:
    """The task: embed the rows of a chunk; `block_info` tells where they lie in the matrix."""
    return work.embed(block, first=block_info[0]["array-location"][0][0])


@contextmanager
def threads_of_worker() -> Iterator[None]:
    """Let torch use all threads that a dask worker was given: dask starts its processes with `OMP_NUM_THREADS=1`."""
    import torch

    distributed, before = sys.modules.get("distributed"), torch.get_num_threads()
    try:
        if distributed is not None:
            torch.set_num_threads(distributed.get_worker().state.nthreads)
    except ValueError:  # no worker: a scheduler of dask's inside the process of the user
        pass
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def hashes(embedder: Embedder) -> dict[str, str]:
    """SHA-256 of each file that a model was loaded from, by role."""
    return {role: sha256(path) for role, path in getattr(embedder, "files", {}).items()}
