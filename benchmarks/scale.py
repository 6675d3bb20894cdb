"""Peak memory and time of checking, embedding and predicting as the number of cells grows, each step in a process of its own.

Matrices are generated and written to disk block by block (`benchmarks/memory.py`); every step opens the file by its path.
`encode` embeds by a tiny scGPT (the weights of the tests) into a block store, `apply` predicts by a saved model that was
trained on 2,000 cells.

    python benchmarks/scale.py --out docs/benchmarks/scale.md          # 100,000, 300,000 and 1,000,000 cells x 20,000 genes
    python benchmarks/scale.py --quick                                 # 2,000 and 4,000 cells
    python benchmarks/scale.py --steps check predict --folder /scratch # some steps; files of these names
                                                                       # are used again, others are written there and removed
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# A neighbor of this file, coverage.py, must not be taken for the package of that name.
sys.path = [folder for folder in sys.path if Path(folder or ".").resolve() != FOLDER]

STEPS = ("check", "embed", "encode", "predict", "apply")
TINY = FOLDER.parent / "tests" / "golden" / "scgpt" / "weights"
MODEL, CELLS = "model", "small.h5ad"


def work(step: str, path: Path) -> dict[str, float]:
    """Run one step on a file; seconds, CPU seconds and peak memory in MB, before and after."""
    import sc_drugresp as sdr

    warnings.simplefilter("ignore")
    sdr.settings.progress = False
    model, small = path.parent / MODEL, path.parent / CELLS
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        run = {
            "check": lambda data: sdr.pp.check(data, group_key="sample"),
            "embed": lambda data: sdr.tl.embed(data, "pca"),
            "encode": lambda data: sdr.tl.embed(data, "scgpt", checkpoint=TINY, out=f"{folder}/{Path(data).stem}.zarr"),
            "predict": lambda data: sdr.tl.predict_response(data, group_key="sample"),
            "apply": lambda data: sdr.tl.predict_response(data, model, group_key="sample"),
        }[step]
        # Libraries are loaded and kernels compiled before anything is measured.
        run(small if step in ("encode", "apply") else sdr.datasets.toy(8, 20))
        libraries, start, cpu = _peak(), time.perf_counter(), time.process_time()
        run(path)
        return {
            "libraries_mb": libraries,
            "peak_mb": _peak(),
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
        }


def _peak() -> float:
    """Most memory of this process, MB. On Linux not from `getrusage`, which also counts what the parent held at the start."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _write(path: Path, n_cells: int, genes: int) -> None:
    """Write a file; some of its genes have names that the tiny encoder knows."""
    import h5py
    import numpy as np

    import sc_drugresp as sdr

    _writer()(path, n_cells, genes)
    known = list(sdr.models.load("scgpt", checkpoint=TINY).vocab.names)
    with h5py.File(path, "r+") as file:
        names = np.asarray(file["var/_index"].asstr()[:], dtype=object)
        names[100 : 100 + len(known)] = known
        file["var/_index"][:] = names


def _train(folder: Path, genes: int) -> None:
    """Write some cells, and a model that learned from them."""
    import anndata

    import sc_drugresp as sdr

    _write(folder / CELLS, 2_000, genes)
    cells = anndata.read_h5ad(folder / CELLS)
    sdr.tl.train_response(cells, group_key="sample").save(folder / MODEL, overwrite=True)


def _writer() -> object:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("memory", FOLDER / "memory.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write


def main() -> None:
    """Write the files, run every step on each, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--quick", action="store_true", help="2,000 and 4,000 cells x 2,000 genes")
    parser.add_argument("--folder", type=Path, help="where the matrices are written (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--worker", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(args.worker[0], Path(args.worker[1]))))
        return
    cells, genes = ([2_000, 4_000], 2_000) if args.quick else (args.cells, args.genes)
    lines = ["| step | cells | peak, MB | libraries, MB | seconds | CPU seconds |", "|---" * 6 + "|"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        _train(folder, genes)
        for n_cells in cells:
            path = folder / f"{n_cells}.h5ad"
            kept = path.exists()
            if not kept:
                _write(path, n_cells, genes)
            for step in args.steps:
                command = [sys.executable, __file__, "--worker", step, str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                r = json.loads(done.stdout.splitlines()[-1])
                lines.append(
                    f"| {step} | {n_cells:,} | {r['peak_mb']:.0f} | {r['libraries_mb']:.0f} | {r['seconds']:.0f} | "
                    f"{r['cpu_seconds']:.0f} |"
                )
                print(lines[-1], flush=True)
            if not kept:
                path.unlink()
    if args.out:
        machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
        args.out.write_text(
            "# Scale\n\nPeak memory and time of one process per step; the matrix stays on disk. "
            f"{genes:,} genes, {machine}.\n\n"
            + "\n".join(lines)
            + f"\n\nCommand: `python benchmarks/scale.py --out {args.out}`\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
