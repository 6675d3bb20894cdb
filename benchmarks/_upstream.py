"""The original software and ours on the same cells, in turns, in one run.

The user installs the original into a folder (`pip install --target DIR`, or a virtual environment, whose Python is then used;
it needs numpy and anndata) and writes `upstream.py` into it, with one function:

    def embed(model: str, checkpoint: str, counts, genes: list[str]) -> numpy.ndarray

`counts` is a CSR matrix of raw counts (cells x genes, float32), and the rows of the result are those of `counts`. The first
call, with two cells, is not timed: load the checkpoint there and keep it (`functools.cache`). Nothing else of the folder is
looked at.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import anndata as ad

PROTOCOL = "upstream.py"


def compare(
    folder: Path, model: str, checkpoint: Path, adata: ad.AnnData, *, threads: int = 1, repeats: int = 5
) -> dict[str, Any]:
    """Seconds of both sides for the same cells, and how well their embeddings agree.

    Raises
    ------
    FileNotFoundError
        The folder has no `upstream.py`.
    RuntimeError
        A side ended; the message holds what it said.
    """
    if not (folder / PROTOCOL).is_file():
        msg = f"{folder} has no {PROTOCOL} with a function embed(model, checkpoint, counts, genes); see benchmarks/_upstream.py."
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory() as room:
        adata.write_h5ad(Path(room) / "cells.h5ad")
        sides = {
            "upstream": _Side("upstream", folder, model, checkpoint, Path(room), threads),
            "ours": _Side("ours", folder, model, checkpoint, Path(room), threads),
        }
        try:
            for side in sides.values():
                side.ask("load")
            seconds = {name: [] for name in sides}
            for _ in range(repeats):
                for name, side in sides.items():
                    seconds[name].append(side.ask("embed"))
            values = {name: np.load(Path(room) / f"{name}.npy") for name in sides}
        finally:
            for side in sides.values():
                side.close()
    return {
        "model": model,
        "cells": adata.n_obs,
        "threads": threads,
        "seconds": seconds,
        "ratio": (np.array(seconds["upstream"]) / np.array(seconds["ours"])).tolist(),
        "agreement": agreement(values["upstream"], values["ours"]),
    }


def agreement(theirs: np.ndarray, ours: np.ndarray) -> float | None:
    """Smallest cosine between the two embeddings of a cell; `None` where their widths differ."""
    if theirs.shape != ours.shape:
        return None
    both = np.isfinite(theirs).all(axis=1) & np.isfinite(ours).all(axis=1)
    x, y = theirs[both].astype(float), ours[both].astype(float)
    scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float(((x * y).sum(axis=1) / np.where(scale > 0, scale, 1)).min()) if len(x) else None


class _Side:
    """A process that embeds when it is told to."""

    def __init__(self, name: str, folder: Path, model: str, checkpoint: Path, room: Path, threads: int) -> None:
        self.name, self.errors = name, room / f"{name}.txt"
        number = str(threads)
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}
        environment |= {"PYTHONPATH": path} if name == "upstream" else {}
        own = [folder / "bin" / "python", folder / "Scripts" / "python.exe"] if name == "upstream" else []
        python = next((str(path) for path in own if path.exists()), sys.executable)
        command = [python, "-P", __file__, name, str(folder), model, str(checkpoint), str(room)]
        with self.errors.open("w") as errors:
            self.process: Any = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )

    def ask(self, what: str) -> float:
        """Seconds that it took."""
        try:
            self.process.stdin.write(f"{what}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        msg = f"{self.name} ended: {self.errors.read_text()[-2000:]}"
        raise RuntimeError(msg)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()  # closes its pipes


def serve(name: str, folder: str, model: str, checkpoint: str, room: str) -> None:
    """Answer each line with the seconds of an embedding."""
    import anndata as ad

    warnings.simplefilter("ignore")
    adata = ad.read_h5ad(Path(room) / "cells.h5ad")
    embed = _theirs(Path(folder)) if name == "upstream" else _ours()
    for line in sys.stdin:
        cells = adata[:2] if line.strip() == "load" else adata
        counts, genes = cells.X.tocsr(), list(cells.var_names)
        start = time.perf_counter()
        values = np.asarray(embed(model, checkpoint, counts, genes))
        seconds = time.perf_counter() - start
        if len(values) != cells.n_obs:
            msg = f"embed() must return a row for each of {cells.n_obs} cells, found {values.shape}."
            raise ValueError(msg)
        np.save(Path(room) / f"{name}.npy", values)
        print(f"seconds {seconds}", flush=True)


def _theirs(folder: Path) -> Any:
    return runpy.run_path(str(folder / PROTOCOL))["embed"]


def _ours() -> Any:
    from functools import cache

    import anndata as ad
    import pandas as pd

    import sc_drugresp as sdr

    sdr.settings.progress, sdr.settings.device, sdr.settings.verbosity = False, "cpu", 0
    load = cache(lambda model, checkpoint: sdr.models.load(model, checkpoint=checkpoint, verify=False))

    def embed(model: str, checkpoint: str, counts: Any, genes: list[str]) -> np.ndarray:
        return load(model, checkpoint).embed(ad.AnnData(counts, var=pd.DataFrame(index=genes)), genes="exact")

    return embed


def lines(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    from benchmarks._page import spread, table

    rows = [
        [
            r["model"],
            f"{r['cells']:,}",
            r["threads"],
            f"{r['cells'] / np.median(r['seconds']['upstream']):.3g}",
            f"{r['cells'] / np.median(r['seconds']['ours']):.3g}",
            spread(r["ratio"]),
            "other width" if r["agreement"] is None else f"{r['agreement']:.6f}",
        ]
        for r in results
    ]
    header = ["model", "cells", "threads", "original, cells/s", "ours, cells/s", "ratio", "least cosine"]
    return (
        "## The original software, in the same run\n\n"
        "Both sides embed the same cells in turns, from counts to the embedding, with the checkpoint loaded before. The ratio is that of "
        f"each round, with the middle 80 %.\n\n{table(header, rows)}\n"
    )


if __name__ == "__main__":
    serve(*sys.argv[1:])
