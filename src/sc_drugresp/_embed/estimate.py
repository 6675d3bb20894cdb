"""What an embedding will cost, told before it is computed."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import check_fields
from .._core.device import resolve_device
from .._core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._core.kinds import BatchTokens
    from ..models._spec import RemoteFile
    from .job import Job

PROBE_SECONDS = 2.0
_FITS = (500, 2_000)
"""Cells of the two fits from which the time of a larger one is told."""
_BLOCK_COPIES = 24  # bytes per count of a block: as read, as aligned, as tokens


@dataclass(frozen=True)
class Estimate:
    """What :func:`~sc_drugresp.tl.embed` would need, as told by `dry_run=True`.

    Parameters
    ----------
    model, device, engine
        What computes, and where. Embedders that are fitted have no engine.
    n_cells
        Cells to embed.
    tokens, tokens_mean, tokens_longest
        Tokens of all cells, per cell, and of the longest; `None` for embedders without tokens.
    tokens_exact
        Whether all cells were tokenized; of more than 20,000 cells, 20,000 evenly spread ones are.
    seconds, seconds_range
        Time for all cells, and between which numbers it is expected to lie; `None` where no estimate is possible.
    memory_bytes
        Peak memory beyond the object itself, by what holds it: `weights` and `batch` (on the device), `counts` (a block
        of them) and `embedding`.
    disk_bytes
        Size of the embedding, in `.obsm` and in a file.
    download_bytes
        Size of the files that are missing in the cache; `None` where the publisher states none.
    missing
        Names of these files.
    notes
        What else to know about the numbers.
    """

    model: str
    device: str
    engine: str
    n_cells: int
    tokens: int | None = None
    tokens_mean: float | None = None
    tokens_longest: int | None = None
    tokens_exact: bool = True
    seconds: float | None = None
    seconds_range: tuple[float, float] | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    disk_bytes: int = 0
    download_bytes: int | None = 0
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        about = "" if self.tokens_exact else "about "
        parts = ", ".join(f"{name} {_bytes(n)}" for name, n in self.memory_bytes.items())
        lines = [("cells", f"{self.n_cells:,} with {self.model} on {self.device} ({self.engine})")]
        if self.tokens is not None:
            told = f"{about}{self.tokens:,}; {self.tokens_mean:,.0f} a cell, {self.tokens_longest:,} the longest"
            lines.append(("tokens", told))
        if self.seconds is None or self.seconds_range is None:
            lines.append(("time", "not estimated"))
        else:
            low, high = map(_duration, self.seconds_range)
            pace = f", {self.n_cells / self.seconds:,.3g} cells/s" if self.seconds else ""
            lines.append(("time", f"{_duration(self.seconds)} ({low} to {high}){pace}"))
        lines += [("memory", f"{_bytes(sum(self.memory_bytes.values()))} ({parts})"), ("disk", _bytes(self.disk_bytes))]
        size = "of unknown size" if self.download_bytes is None else _bytes(self.download_bytes)
        lines.append(("download", f"{size} ({', '.join(self.missing)})" if self.missing else "nothing"))
        return "\n".join(f"{name:>9}  {text}" for name, text in [*lines, *(("note", note) for note in self.notes)])


def estimate(job: Job, missing: list[RemoteFile], batch_tokens: BatchTokens = "auto") -> Estimate:
    """Count tokens, time a probe of about two seconds, and add up memory, disk and download.

    Parameters
    ----------
    job
        What is to be embedded; made by :meth:`Job.supposed` where files are missing.
    missing
        Files to be downloaded.
    batch_tokens
        As in :func:`~sc_drugresp.tl.embed`.
    """
    sizes = [file.bytes or file.about_bytes for file in missing]
    found: dict[str, Any] = {
        "download_bytes": None if None in sizes else sum(filter(None, sizes)),
        "missing": tuple(file.path for file in missing),
    }
    notes = []
    if missing:
        notes.append(
            "Without its files the network has random weights and the published size, and every gene of the data counts "
            "as known: fewer tokens are likely."
        )
    n = job.source.n_obs
    if job.aligned is not None and hasattr(job.embedder, "token_blocks"):
        cost, more = _network_cost(job, batch_tokens)
    elif job.aligned is not None:
        cost, more = _reader_cost(job)
    else:
        cost, more = _fit_cost(job)
    size = n * cost.pop("dim", job.embedder.dim) * 4
    memory = {**cost.pop("memory"), "counts": _block_bytes(job), "embedding": size}
    return Estimate(
        job.model,
        n_cells=n,
        memory_bytes=memory,
        disk_bytes=size,
        notes=(*notes, *more),
        **cost,
        **found,
    )


def told(found: Estimate) -> Estimate:
    """The estimate, after it was printed."""
    sys.stdout.write(f"{found!r}\n")
    return found


def _network_cost(job: Job, batch_tokens: BatchTokens) -> tuple[dict[str, Any], list[str]]:
    """Tokens, time and memory of a network."""
    from ..models._engines import device_of, running
    from ..models._probe import Lengths, measure, weight_bytes

    encoder: Any = job.embedder
    encoder.to(device_of(job.engine))
    cells: Any = job.aligned
    lengths = Lengths.of(encoder, cells, job.seed)
    with running(encoder, job.engine, job.precision):
        pace = measure(encoder, cells, lengths, seed=job.seed, batch_tokens=batch_tokens, budget=PROBE_SECONDS)
    scale = cells.n_obs / len(lengths.rows)
    whole = len(lengths.rows) == cells.n_obs
    tokens = int(lengths.tokens.sum()) if whole else round(float(lengths.tokens.mean()) * cells.n_obs)
    notes = [f"Time from {pace.n_timed} of these cells, short, middle and long ones; other programs make it longer."]
    if empty := int((lengths.sizes == 0).sum()) if not encoder.set_based else 0:
        notes.append(f"{round(empty * scale):,} cells have nothing to embed.")
    cost = {
        "device": str(encoder.device),
        "engine": job.engine if job.precision == "float32" else f"{job.engine}, {job.precision}",
        "tokens": tokens,
        "tokens_mean": float(lengths.tokens.mean()),
        "tokens_longest": int(lengths.tokens.max()),
        "tokens_exact": whole,
        "seconds": scale * (pace.seconds + lengths.seconds),
        "seconds_range": (scale * (pace.low + 0.5 * lengths.seconds), scale * (pace.high + 2 * lengths.seconds)),
        "memory": {"weights": weight_bytes(encoder), "batch": pace.batch_bytes},
    }
    return cost, notes


def _reader_cost(job: Job) -> tuple[dict[str, Any], list[str]]:
    """Time of an embedder that reads counts as they are: a student."""
    n, k = job.source.n_obs, min(job.source.n_obs, _FITS[-1])
    part = job.source.take(np.linspace(0, n - 1, k).astype(np.int64))
    start = time.perf_counter()
    job.embedder.embed(part, genes=job.genes)
    seconds = (time.perf_counter() - start) * n / k
    device, range_of = str(resolve_device()), (seconds / 2, seconds * 2)
    cost: dict[str, Any] = {
        "device": device,
        "engine": "torch",
        "memory": {},
        "seconds": seconds,
        "seconds_range": range_of,
    }
    return cost, [f"Time from {k:,} of these cells."]


def _fit_cost(job: Job) -> tuple[dict[str, Any], list[str]]:
    """Time and memory of an embedder that is fitted to the cells."""
    embedder: Any = job.embedder
    device = "cpu" if getattr(embedder, "steady", False) else str(resolve_device())
    cost: dict[str, Any] = {"device": device, "engine": "fitted to these cells", "memory": {}}
    if not getattr(embedder, "steady", False):
        return cost, [f"{job.model} is trained on these cells; how long that takes cannot be told from a few of them."]
    n, fitted = job.source.n_obs, min(job.source.n_obs, embedder.max_fit_cells)
    cost["memory"]["fit"] = fitted * min(embedder.n_top_genes, job.source.n_vars) * 4 * 2
    times = [_timed_fit(job, k) for k in sorted({min(k, n) for k in _FITS})]
    k, fit, transform, cost["dim"] = times[-1]
    slope = max(0.0, (fit - times[0][1]) / (k - times[0][0])) if len(times) > 1 else 0.0
    seconds = fit + slope * (fitted - k) + transform / k * n
    spread = 1.5 if n <= k else 3.0
    cost |= {"seconds": seconds, "seconds_range": (seconds / spread, seconds * spread)}
    return cost, [f"Time from fits to {' and '.join(f'{k:,}' for k, *_ in times)} of these cells."]


def _timed_fit(job: Job, k: int) -> tuple[int, float, float, int]:
    """Number of cells, seconds of a fit to so many, and of their embedding, and its width."""
    from copy import copy

    rows = np.linspace(0, job.source.n_obs - 1, k).astype(np.int64)
    part, embedder = job.source.take(rows), copy(job.embedder)
    start = time.perf_counter()
    embedder.fit(part, rng=job.seed)  # type: ignore[attr-defined]
    between = time.perf_counter()
    width = embedder.transform(part).shape[1]  # type: ignore[attr-defined]
    return k, between - start, time.perf_counter() - between, width


def _block_bytes(job: Job) -> int:
    """Memory of a block of counts in the making."""
    rows = np.unique(np.linspace(0, job.source.n_obs - 1, min(job.source.n_obs, 64)).astype(np.int64))
    counted = sum(block.nnz for _, block in job.source.blocks(rows=rows)) / len(rows)
    return int(min(job.source.n_obs, settings.block_cells) * counted * _BLOCK_COPIES)


def _bytes(n: int) -> str:
    """A size with three digits."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n / 1e3:.3g} kB"


def _duration(seconds: float) -> str:
    """A time in the unit in which people say it."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
