"""`tl.embed(out=)`: the same bits as in memory, whatever happened in between, and never the blocks of another run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers import cell_lines, golden

import sc_drugresp as sdr
from sc_drugresp._embed.store.errors import RunStoppedError
from sc_drugresp._embed.store.layout import Blocks, Layout
from sc_drugresp._embed.store.store import BlockStore

TESTS = Path(__file__).parents[1]
TGPT = {"model": "tgpt", "checkpoint": golden("tgpt").weights, "key_added": "e"}

pytestmark = pytest.mark.filterwarnings("ignore:Only .* of the counts", "ignore:Embeddings of .* parallel")


@pytest.fixture(autouse=True)
def _small_blocks():
    with sdr.settings.override(block_cells=16):
        yield


@pytest.fixture(scope="module")
def cells():
    return cell_lines(cells=14)  # 70 cells: five blocks, the last one smaller


@pytest.fixture(scope="module")
def expected(cells):
    """In memory, with the same blocks."""
    with sdr.settings.override(block_cells=16, device="cpu"):
        return sdr.tl.embed(cells, **TGPT, copy=True).obsm["e"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run.zarr"


def run(cells, out, **options):
    adata = cells.copy()
    done = sdr.tl.embed(adata, **TGPT | {"out": out} | options)
    return adata if done is None else done


def same(found, expected):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def flip(out, block, at=5):
    path = Layout(out).chunk(block)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def files(out):
    return sorted(str(path.relative_to(out.parent)) for path in out.parent.rglob("*") if path.is_file())


# The same bits ----------------------------------------------------------------------------------------------------------


def test_anybody_can_read_it(cells, out, expected):
    run(cells, out)
    array = zarr.open(out, mode="r")
    assert array.chunks == (16, expected.shape[1])
    same(array[:], expected)


def test_blocks_and_batches_of_the_run_stay(cells, out, expected):
    run(cells, out, shard=(0, 2))
    with sdr.settings.override(block_cells=7, batch_tokens=64):
        same(run(cells, out).obsm["e"], expected)
    with pytest.raises(ValueError, match="batch_tokens"):
        run(cells, out, batch_tokens=99)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_path_gives_an_array_on_the_disk(cells, out, expected, tmp_path, suffix):
    import dask.array as da

    path = tmp_path / f"cells{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells.write_h5ad(path) if suffix == ".h5ad" else cells.write_zarr(path)
    opened = sdr.tl.embed(path, **TGPT, out=out)
    assert isinstance(opened.obsm["e"], da.Array)
    same(opened.obsm["e"], expected)
    same(opened[::3].obsm["e"], expected[::3])
    same(opened.to_memory().obsm["e"], expected)


def test_cells_without_known_genes_are_rows_of_nan(cells, out):
    adata, counts = cells.copy(), cells.X.tolil()
    counts[20:40] = 0
    adata.X = counts.tocsr()
    with pytest.warns(UserWarning, match="20 of 70 cells"):
        found = run(adata, out)
    assert np.isnan(found.obsm["e"]).all(axis=1).nonzero()[0].tolist() == list(range(20, 40))
    assert found.uns["e"]["cells"] == {"n": 70, "not_embedded": 20}
    with pytest.warns(UserWarning, match="20 of 70 cells"):
        same(run(adata, out, check_blocks="all").obsm["e"], found.obsm["e"])


# Shards -----------------------------------------------------------------------------------------------------------------


def test_shards_are_whole_blocks_and_all_of_them():
    for n in (1, 2, 3, 7, 20):
        shares = [Blocks(70, 16).share((i, n)) for i in range(n)]
        assert [block for share in shares for block in share] == list(range(5))


def test_a_shard_says_what_is_missing_and_sets_nothing(cells, out, expected):
    adata = cells.copy()
    first = sdr.tl.embed(adata, **TGPT, out=out, shard=(0, 2))
    assert isinstance(first, sdr.tl.EmbeddingRun)
    assert (first.computed, first.blocks_done, first.blocks, first.complete) == (2, 2, 5, False)
    assert first.missing == ((2, 4),)
    assert "2 of 5 blocks" in str(first)
    assert "blocks 2 to 4" in str(first)
    second = sdr.tl.embed(adata, **TGPT, out=out, shard=(1, 2))
    assert (second.computed, second.complete) == (3, True)
    assert not adata.obsm
    assert "e" not in adata.uns
    stored = run(cells, out)
    same(stored.obsm["e"], expected)
    assert (
        stored.uns["e"]["genes"]["counts_covered"]
        == run(cells, out.with_name("x.zarr")).uns["e"]["genes"]["counts_covered"]
    )


def test_an_unfinished_run_is_attached_on_request(cells, out, expected):
    run(cells, out, shard=(1, 2))
    with pytest.warns(UserWarning, match="32 of 70 cells are not computed"):
        found = run(cells, out, allow_partial=True)
    assert np.isnan(found.obsm["e"][:32]).all()
    same(found.obsm["e"][32:], expected[32:])
    assert found.uns["e"]["store"]["blocks_done"] == 3
    assert not (Layout(out).record(0)).exists()  # nothing was computed


def test_a_job_array_of_processes_gives_the_bits_of_one(cells, out, expected, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    code = f"""
    import sys, sc_drugresp as sdr
    sdr.settings.block_cells = 16
    sdr.settings.device = "cpu"
    run = sdr.tl.embed({str(tmp_path / "cells.h5ad")!r}, "tgpt", checkpoint={str(TGPT["checkpoint"])!r}, out={str(out)!r},
        shard=(int(sys.argv[1]), 2))
    print(run)
    """
    jobs = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    said = [job.communicate()[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    stamp = out.stat().st_mtime_ns, [path.stat().st_mtime_ns for path in sorted((out / "c").rglob("0"))]
    opened = sdr.tl.embed(tmp_path / "cells.h5ad", **TGPT, out=out, check_blocks="all")
    same(opened.obsm["e"], expected)
    assert stamp == (out.stat().st_mtime_ns, [path.stat().st_mtime_ns for path in sorted((out / "c").rglob("0"))])


@pytest.mark.slow
def test_the_commands_of_the_page_on_job_arrays(tmp_path):
    page = TESTS.parent / "docs" / "how_to" / "long_runs.md"
    if not page.is_file():
        pytest.skip("the documentation is not part of this installation")
    script = next(text for text in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "SLURM" in text)
    (tmp_path / "embed.py").write_text(script.replace('"scgpt"', '"pca"'))
    loop = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)[-1]
    sdr.datasets.toy(8, 600).write_h5ad(tmp_path / "cells.h5ad")
    done = subprocess.run([shutil.which("bash"), "-c", loop], cwd=tmp_path, capture_output=True, text=True)
    assert "of shard 0 of 2" in done.stdout, done.stderr
    assert "of shard 1 of 2" in done.stdout, done.stderr
    opened = sdr.tl.embed(tmp_path / "cells.h5ad", "pca", out=tmp_path / "cells_scgpt.zarr", check_blocks="all")
    with sdr.settings.override(block_cells=2_048):
        same(opened.obsm["X_sdr_pca"], sdr.tl.embed(tmp_path / "cells.h5ad", "pca").obsm["X_sdr_pca"])


# Damage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "check"), [(1, "all"), (4, "all"), (4, "sample")])
def test_a_flipped_byte_is_found_and_the_block_computed_again(cells, out, expected, block, check):
    run(cells, out)
    flip(out, block)
    with pytest.warns(UserWarning, match=rf"1 finished blocks .* damaged: \[{block}\]"):
        same(run(cells, out, check_blocks=check).obsm["e"], expected)
    same(zarr.open(out, mode="r")[:], expected)


@pytest.mark.parametrize("damage", ["gone", "short", "record"])
def test_a_lost_or_cut_file_is_always_found(cells, out, expected, damage):
    run(cells, out)
    layout = Layout(out)
    if damage == "gone":
        layout.chunk(1).unlink()
    elif damage == "short":
        layout.chunk(1).write_bytes(layout.chunk(1).read_bytes()[:100])
    else:
        layout.record(1).write_text('{"start": 16')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(run(cells, out).obsm["e"], expected)
    assert json.loads(layout.record(1).read_text())["stop"] == 32


def test_damaged_blocks_are_not_attached_in_part(cells, out, expected):
    run(cells, out, shard=(0, 2))
    flip(out, 1)
    with pytest.warns(UserWarning, match=r"damaged: \[1\]|54 of 70 cells"):
        found = run(cells, out, allow_partial=True)
    same(found.obsm["e"][:16], expected[:16])
    assert np.isnan(found.obsm["e"][16:]).all()


def test_a_damaged_fit_is_refused(cells, out):
    sdr.tl.embed(cells.copy(), "pca", out=out)
    with Layout(out).fit.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"abc")
    with pytest.raises(ValueError, match="is damaged"):
        sdr.tl.embed(cells.copy(), "pca", out=out)


# Other runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rng": 1}, r"seed \(0 there, 1 now\)"),
        ({"genes": "exact"}, "genes"),
        ({"layer": "other"}, "matrix"),
        ({"pooling": "all"}, r"options.pooling"),
        ({"model": "scgpt", "checkpoint": golden("scgpt").weights}, "checkpoint"),
    ],
)
def test_another_run_is_refused_by_the_names_of_what_differs(cells, out, changes, words):
    adata = cells.copy()
    adata.layers["other"] = adata.X.copy()
    adata.obsm.clear()
    sdr.tl.embed(adata, **TGPT, layer="X", out=out, shard=(0, 3))
    before = files(out)
    with pytest.raises(ValueError, match=f"differs in: .*{words}"):
        sdr.tl.embed(adata, **TGPT | {"layer": "X"} | changes, out=out)
    assert files(out) == before
    assert not adata.obsm


@pytest.mark.parametrize("model", ["tgpt", "pca"])
def test_other_counts_are_refused_and_a_moved_file_is_not(cells, out, tmp_path, model):
    call = TGPT if model == "tgpt" else {"model": "pca", "n_comps": 5, "key_added": "e"}
    path, other = tmp_path / "cells.h5ad", tmp_path / "elsewhere" / "moved.h5ad"
    cells.write_h5ad(path)
    sdr.tl.embed(path, **call, out=out, shard=(0, 2))
    other.parent.mkdir()
    shutil.copy(path, other)  # of another time
    same(sdr.tl.embed(other, **call, out=out).obsm["e"], sdr.tl.embed(path, **call).obsm["e"])
    changed = cells.copy()
    changed.X = changed.X.copy()
    changed.X.data[3] += 1
    changed.write_h5ad(path)
    with pytest.raises(ValueError, match=r"counts are not those|cells that it was fitted to"):
        sdr.tl.embed(path, **call, out=out)
    with pytest.raises(ValueError, match="cell names"):
        sdr.tl.embed(cells[::-1].copy(), **call, out=out)
    with pytest.raises(ValueError, match=r"cells \(70 there, 69 now\)"):
        sdr.tl.embed(cells[:-1].copy(), **call, out=out)


def test_what_cannot_be_computed_in_blocks_is_refused(cells, tmp_path):
    with pytest.raises(ValueError, match="cells of a set see each other"):
        sdr.tl.embed(cells.copy(), "cellplm", checkpoint=golden("cellplm").weights, out=tmp_path / "a.zarr")
    uce = {"checkpoint": golden("uce").weights, "padding": "upstream"}
    with pytest.raises(ValueError, match="depend on those before them"):
        sdr.tl.embed(cells.copy(), "uce", **uce, out=tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "run"}, "ends in '.zarr'"),
        ({"shard": (0, 2)}, "`shard` needs `out`"),
        ({"allow_partial": True}, "`allow_partial` needs `out`"),
        ({"out": "run.zarr", "shard": (2, 2)}, r"`shard` must be \(i, n\)"),
        ({"out": "run.zarr", "shard": (0, 1, 2)}, r"`shard` must be \(i, n\)"),
        ({"out": "run.zarr", "allow_partial": True}, "finds no run"),
        ({"out": "taken.zarr"}, "was not written by tl.embed"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_work(cells, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    zarr.create_group("taken.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=words):
        sdr.tl.embed(cells.copy(), "pca", **options)
    assert sorted(tmp_path.rglob("*")) == before


# Interruptions ----------------------------------------------------------------------------------------------------------


KILLS = """
import shutil, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[2])
import numpy as np
import sc_drugresp as sdr
from helpers import cell_lines, golden
from kills import kill_often
sdr.settings.block_cells, sdr.settings.verbosity, sdr.settings.device = 16, 0, "cpu"
folder, n = Path(sys.argv[1]), int(sys.argv[3])
cells = cell_lines(cells=int(sys.argv[4]))
call = {"model": "tgpt", "checkpoint": golden("tgpt").weights, "key_added": "e"}
expected = sdr.tl.embed(cells, **call, copy=True).obsm["e"]
sdr.tl.embed(cells, **call, out=folder / "whole.zarr", copy=True)
def listed(name):
    root = folder / name
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
whole = listed("whole.zarr")
blocks = -(-cells.n_obs // 16)
seen = []
start = time.perf_counter()
sdr.tl.embed(cells, **call, out=folder / "whole.zarr", copy=True)  # what a call takes that has nothing to compute
overhead = time.perf_counter() - start
start = time.perf_counter()
sdr.tl.embed(cells, **call, out=folder / "run.zarr", copy=True)
whole_time = time.perf_counter() - start - overhead
shutil.rmtree(folder / "run.zarr")

def action(i):
    sdr.tl.embed(cells, **call, out=folder / "run.zarr", copy=True)

def check(i):
    seen.append(len(list((folder / "run.zarr/sc_drugresp/done").glob("[0-9]*.json"))))

kill_often(action, check, n=n, longest=2 * overhead + 2 * whole_time / n)
found = sdr.tl.embed(cells, **call, out=folder / "run.zarr", check_blocks="all", copy=True)
np.testing.assert_array_equal(found.obsm["e"], expected)
assert listed("run.zarr") == whole, set(listed("run.zarr")) ^ set(whole)
assert sorted(path.name for path in folder.iterdir()) == ["run.zarr", "whole.zarr"], list(folder.iterdir())
assert seen == sorted(seen) and 0 < seen[-1], seen
print("finished before each kill", seen, "of", blocks)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("n", "cells"), [(3, 60), pytest.param(20, 400, marks=pytest.mark.slow)])
def test_kills_lose_no_finished_block_and_no_bit(tmp_path, n, cells):
    arguments = [str(tmp_path), str(TESTS), str(n), str(cells)]
    done = subprocess.run([sys.executable, "-c", KILLS, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"killed {n} times" in done.stdout


def test_ctrl_c_says_what_is_safe(cells, out, expected, monkeypatch):
    write = BlockStore.write
    calls = []

    def interrupted(self, block, values, record):
        calls.append(block)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, block, values, record)

    monkeypatch.setattr(BlockStore, "write", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"2 of 5 blocks are safe in .*run.zarr; call again"):
        run(cells, out)
    monkeypatch.undo()
    same(run(cells, out).obsm["e"], expected)


def test_a_failing_disk_leaves_no_half_block(cells, out, expected, monkeypatch):
    import errno

    from sc_drugresp._embed.store import store

    def fails(path):
        if path.name == "0" and path.parent.name == "2":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "sync", fails)
    with pytest.raises(
        RunStoppedError, match=r"2 of 5 blocks are safe .* the disk fails \(Input/output error\)"
    ) as caught:
        run(cells, out)
    assert (caught.value.exit_code, caught.value.errno) == (2, errno.EIO)
    assert not Layout(out).chunk(2).exists()
    assert [name for name in files(out) if "lock" in name or "part" in name] == []
    monkeypatch.undo()
    same(run(cells, out).obsm["e"], expected)


def test_a_full_disk_leaves_finished_blocks(cells, tmp_path, expected):
    """On a file system of its own where one can be mounted; else the system call says that the disk is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = _mount(tmp_path / "image", disk)
    out = disk / "run.zarr"
    try:
        with pytest.MonkeyPatch.context() as patch:
            if mounted:
                _fill(disk, leave=25_000)
            else:
                patch.setattr(Path, "replace", _full_after(12, Path.replace))
            with pytest.raises(RunStoppedError, match=r"of 5 blocks are safe .* the disk is full: free") as caught:
                run(cells, out)
        assert caught.value.exit_code == 2
        done = len(list(Layout(out).done.glob("[0-9]*.json")))
        assert 0 < done < 5
        assert not list(out.rglob("*.part*"))
        with pytest.warns(UserWarning, match="not computed yet"):
            part = run(cells, out, allow_partial=True).obsm["e"]
        kept = ~np.isnan(part).any(axis=1)
        same(part[kept], expected[kept])
        (disk / "ballast").unlink(missing_ok=True)
        same(run(cells, out, check_blocks="all").obsm["e"], expected)
    finally:
        if mounted:
            subprocess.run([shutil.which("umount"), disk], check=True)


def _mount(image, disk):
    """Whether a file system of one megabyte could be mounted, which takes root and Linux."""
    make, mount = shutil.which("mkfs.ext4"), shutil.which("mount")
    if make is None or mount is None or os.name != "posix" or os.geteuid():
        return False
    image.write_bytes(b"\0" * 2**20)
    steps = ([make, "-q", "-m", "0", image], [mount, "-o", "loop", image, disk])
    return all(subprocess.run(step, capture_output=True).returncode == 0 for step in steps)


def _fill(disk, leave):
    """Leave this many bytes free."""
    free = shutil.disk_usage(disk).free
    with (disk / "ballast").open("wb") as file:
        file.write(b"x" * (free - leave))
        file.flush()
        os.fsync(file.fileno())


def _full_after(n, replace):
    import errno

    left = [n]

    def limited(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return replace(self, target)

    return limited


HOLDER = """
import sys, time
from pathlib import Path
from sc_drugresp._embed.store.layout import Layout
from sc_drugresp._embed.store.locks import held
with held(Layout(Path(sys.argv[1])), range(int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_writers_of_the_same_blocks(cells, out, expected):
    run(cells, out, shard=(0, 5))
    command = [sys.executable, "-c", HOLDER, str(out), "3", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            for shard in (None, (1, 2), (4, 5)):
                told = rf"Blocks 3 to 4 .* by process {holder.pid} on .* `shard="
                with pytest.raises(RunStoppedError, match=told) as caught:
                    run(cells, out, shard=shard)
                assert caught.value.exit_code == 2
            assert run(cells, out, shard=(1, 5)).computed == 1  # others go on
            with pytest.warns(UserWarning, match="38 of 70 cells are not computed"):
                run(cells, out, allow_partial=True)
        finally:
            holder.kill()
    same(run(cells, out).obsm["e"], expected)
    assert [name for name in files(out) if "lock" in name or "holder" in name] == []


@pytest.mark.slow
def test_many_who_begin_at_once_make_one_run(cells, out, expected, tmp_path):
    """Of processes that all want everything, one computes and the others are told; nothing is mixed."""
    cells.write_h5ad(tmp_path / "cells.h5ad")
    code = f"""
    import sys, sc_drugresp as sdr
    sdr.settings.block_cells, sdr.settings.device = 16, "cpu"
    try:
        sdr.tl.embed({str(tmp_path / "cells.h5ad")!r}, "tgpt", checkpoint={str(TGPT["checkpoint"])!r}, out={str(out)!r})
    except OSError as error:
        print(error)
        sys.exit(error.exit_code)
    """
    jobs = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [job.communicate()[0] for job in jobs]
    codes = {job.returncode for job in jobs}
    assert 0 in codes, said
    assert codes <= {0, 2}, said
    same(zarr.open(out, mode="r")[:], expected)


def test_memory_holds_two_blocks(monkeypatch):
    """While one is in use, the next one is made, and no other."""
    from sc_drugresp._embed.work import ahead

    made = []

    def items():
        for i in range(6):
            made.append(i)
            yield i

    for i in ahead(items()):
        time.sleep(0.02)
        assert made[-1] <= i + 1
    assert made == list(range(6))


def test_an_error_in_the_other_thread_is_raised(cells, out, monkeypatch):
    from sc_drugresp._embed import work

    def wrong(block):
        if len(block) < 16:
            raise ValueError("the last block")
        return "0"

    monkeypatch.setattr(work, "hash_block", wrong)
    with pytest.raises(ValueError, match="the last block"):
        run(cells, out)
    assert len(BlockStore.open(Layout(out)).records()) == 4
