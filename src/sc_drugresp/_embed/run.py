"""A job whose result goes to a store, block by block; the same call again goes on where it stopped."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from .._core.files import DISK_ERRORS, locked
from .._core.log import logger, warn
from .._core.progress import progress_bar
from .._core.settings import settings
from .environment import check_environment, environment
from .fits import fit_into, learned_from, read_fit
from .progress import EmbeddingRun, run_of
from .store.errors import stopped
from .store.fingerprint import differences, fingerprint, stamp_of
from .store.layout import Layout
from .store.locks import held, me
from .store.records import Record, hash_values
from .store.store import BlockStore
from .work import Work, ahead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from anndata import AnnData

    from .._core.kinds import BatchTokens
    from ..models._spec import ModelSpec
    from .job import Job


@dataclass(frozen=True)
class Into:
    """Where a result should go, as it was asked for; made by :meth:`of`, before anything is loaded.

    Parameters
    ----------
    layout
        Paths of the store.
    shard
        Which part of the blocks to compute.
    check
        Which finished blocks to read again.
    partial
        Compute nothing, and take what is there.
    """

    layout: Layout
    shard: tuple[int, int] | None
    check: Literal["sample", "all"]
    partial: bool

    @classmethod
    def of(
        cls,
        out: str | PathLike[str] | None,
        shard: Sequence[int] | None,
        check: Literal["sample", "all"],
        *,
        partial: bool,
        spec: ModelSpec,
    ) -> Self | None:
        """What was asked for; `None` for a result in memory.

        Raises
        ------
        ValueError
            The options do not fit together, or `out` cannot be used.
        """
        if out is None:
            if shard is not None or partial:
                name = "shard" if shard is not None else "allow_partial"
                msg = f"`{name}` needs `out`, the store that the blocks are in."
                raise ValueError(msg)
            return None
        layout = Layout.of(out)
        if shard is not None and (len(shard) != 2 or shard[0] >= shard[1]):
            msg = f"`shard` must be (i, n), where i counts from 0 to n - 1, found {tuple(shard)}."
            raise ValueError(msg)
        if partial and (shard is not None or not layout.run.is_file()):
            why = "takes what all shards have written: leave out `shard`" if shard else f"finds no run at {str(out)!r}"
            msg = f"`allow_partial` {why}."
            raise ValueError(msg)
        if spec.set_based:
            raise ValueError(_no_blocks(spec.title, "the cells of a set see each other"))
        return cls(layout, None if shard is None else (int(shard[0]), int(shard[1])), check, partial)

    def run(self, job: Job, data: Any, adata: AnnData, batch_tokens: BatchTokens) -> tuple[EmbeddingRun, BlockStore]:
        """Compute what is missing, apart from the blocks of other shards.

        Parameters
        ----------
        job
            What to compute.
        data, adata
            The cells as the user gave them, and the object that they are in.
        batch_tokens
            Most padded tokens in a batch; `'auto'` takes those of the run, or the usual ones for a new run.

        Raises
        ------
        ValueError
            The model cannot embed blocks, or the store holds another run.
        RunStoppedError
            The disk is full or failed, or another process computes the same blocks.
        """
        if not getattr(job.embedder, "blockwise", False):
            raise ValueError(_no_blocks(job.model, "with these options, cells depend on those before them"))
        stamp = stamp_of(data, adata)
        with ExitStack() as stack:
            try:
                with locked(self.layout.root):
                    store = self._open(job, fingerprint(job, adata.obs_names), stamp, batch_tokens)
                    mine = store.blocks.share(None if self.partial else self.shard)
                    if not self.partial and len(mine):
                        stack.enter_context(held(self.layout, mine))
                        store.sweep(mine)
            except OSError as error:
                if error.errno not in DISK_ERRORS:
                    raise
                msg = (
                    f"The disk of {self.layout.root} takes nothing more ({error.strerror}): free some space, or repair it, and "
                    "call again. Finished blocks are safe."
                )
                raise stopped(error, msg) from error
            work = self._work(job, store)
            records = store.records()
            own = {block: record for block, record in records.items() if block in mine}
            self._check_inputs(store, work, own, stamp)
            damaged = store.damaged(own, self.check)
            for block in damaged:
                del records[block], own[block]
                if not self.partial:
                    store.drop(block)
            if damaged:
                todo = "They count as missing." if self.partial else "They are computed again."
                warn(f"{len(damaged)} finished blocks of {self.layout.root} are damaged: {damaged[:10]}. {todo}")
            check_environment(own, job)
            wanted = [] if self.partial else [block for block in mine if block not in own]
            seconds = 0.0
            if wanted:
                logger.info("%s: %d of %d blocks are there", self.layout.root, len(own), len(mine))
                start = time.perf_counter()
                records |= _compute(store, work, job, wanted, stamp, n_before=_cells(store, own))
                seconds = time.perf_counter() - start
            records = store.records() | records  # what other shards have finished meanwhile
        if job.aligned is not None:
            job.aligned.counts_seen = sum(record.counts_seen for _, record in sorted(records.items()))
            job.aligned.counts_matched = sum(record.counts_matched for _, record in sorted(records.items()))
        done = set(records) - set(damaged if self.partial else ())
        run = run_of(
            store,
            done,
            shard=self.shard,
            resumed=len(own),
            computed=len(wanted),
            not_embedded=sum(records[block].not_embedded for block in done),
            seconds=seconds,
            cells_per_second=_cells(store, wanted) / seconds if seconds else 0.0,
        )
        logger.info("%s", run)
        if self.partial and not done:
            msg = f"`allow_partial`: no block of {self.layout.root} is finished yet."
            raise ValueError(msg)
        if self.partial and run.missing:
            warn(f"{run.cells_missing:,} of {run.n_cells:,} cells are not computed yet; their rows are NaN. {run}.")
        return run, store

    def _open(self, job: Job, asked: dict[str, Any], stamp: str | None, batch_tokens: BatchTokens) -> BlockStore:
        """The store of this job, made if there is none."""
        if not self.layout.run.is_file():
            self.layout.notes.mkdir(parents=True, exist_ok=True)
            run: dict[str, Any] = {
                "block_cells": settings.block_cells,
                "batch_tokens": None,
                "fit": None,
                "stamp": stamp,
            }
            if job.embedder.needs_fit:
                run["fit"] = fit_into(self.layout, job.embedder, job.source, job.seed)  # type: ignore[arg-type]
            elif hasattr(job.embedder, "tokenize_block"):
                from ..models._driver import batch_budget
                from ..models._engines import device_of

                run["batch_tokens"] = batch_budget(device_of(job.engine), batch_tokens)
            return BlockStore.create(self.layout, asked, run | {"dim": job.embedder.dim})
        store = BlockStore.open(self.layout)
        wrong = differences(store.info["fingerprint"], asked)
        known = store.info["run"]["batch_tokens"]
        if batch_tokens not in ("auto", known) and known is not None:
            wrong.append(f"batch_tokens ({known} there, {batch_tokens} now)")
        if not wrong and job.embedder.needs_fit and (stamp is None or stamp != store.info["run"]["stamp"]):
            found = learned_from(job.embedder, job.source)  # type: ignore[arg-type]
            wrong = [] if found == store.info["run"]["fit"]["cells"] else ["the cells that it was fitted to"]
        if wrong:
            msg = (
                f"{self.layout.root} holds another run, which differs in: {', '.join(wrong)}. Its blocks cannot be mixed with "
                "new ones. Ask for the same again, choose another `out`, or remove the folder."
            )
            raise ValueError(msg)
        return store

    def _work(self, job: Job, store: BlockStore) -> Work:
        run = store.info["run"]
        if job.embedder.needs_fit:
            fitted = read_fit(self.layout, job.embedder, run["fit"]["sha256"])  # type: ignore[arg-type]
            return Work.of_counts(fitted.align(job.source), fitted)
        if job.aligned is not None and not hasattr(job.embedder, "tokenize_block"):
            return Work.of_counts(job.aligned, job.embedder)
        return Work.of_encoder(job, run["batch_tokens"])

    def _check_inputs(self, store: BlockStore, work: Work, own: Mapping[int, Record], stamp: str | None) -> None:
        """Compare the counts of finished blocks with those of now, where nothing else says that they are the same."""
        doubtful = [block for block, record in own.items() if stamp is None or record.stamp != stamp]
        changed = [
            piece.block
            for piece in work.pieces(store.blocks, doubtful, prepare=False)
            if piece.inputs != own[piece.block].inputs
        ]
        if changed:
            rows = store.blocks.rows(changed[0])
            msg = (
                f"The counts are not those that {self.layout.root} was computed from: {len(changed)} of {len(own)} finished "
                f"blocks differ, the first of them cells {rows.start} to {rows.stop - 1}. Go back to the data of then, choose "
                "another `out`, or remove the folder."
            )
            raise ValueError(msg)


def _compute(
    store: BlockStore, work: Work, job: Job, wanted: Sequence[int], stamp: str | None, *, n_before: int
) -> dict[int, Record]:
    """Compute blocks and write each of them down."""
    records: dict[int, Record] = {}
    from ..models._engines import running

    writer, how = "{host}-{pid}-{since}".format(**me()), environment(job)
    try:
        bar = progress_bar(total=n_before + _cells(store, wanted), desc=job.model, initial=n_before)
        with bar, running(job.embedder, job.engine, job.precision):  # converted once for all blocks
            for piece in ahead(work.pieces(store.blocks, wanted)):
                start = time.perf_counter()
                values = work.compute(piece.prepared, bar.update)
                rows = store.blocks.rows(piece.block)
                record = Record(
                    start=rows.start,
                    stop=rows.stop,
                    sha256=hash_values(values),
                    not_embedded=int(np.isnan(values).any(axis=1).sum()),
                    inputs=piece.inputs,
                    stamp=stamp,
                    counts_seen=piece.seen,
                    counts_matched=piece.matched,
                    seconds=round(time.perf_counter() - start, 3),
                    writer=writer,
                    environment=how,
                )
                try:
                    store.write(piece.block, values, record)
                except OSError as error:
                    raise store.stopped(error) from error
                records[piece.block] = record
    except KeyboardInterrupt:
        raise KeyboardInterrupt(store.told("call again to go on")) from None
    return records


def _cells(store: BlockStore, blocks: Sequence[int] | Mapping[int, Any]) -> int:
    return sum(len(store.blocks.rows(block)) for block in blocks)


def _no_blocks(model: str, why: str) -> str:
    return (
        f"`out` is for models that embed a block of cells by itself; {model} cannot: {why}. Leave out `out`, or embed "
        "the samples one after the other."
    )
