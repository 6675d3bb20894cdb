"""Every file, tensor and key of a saved model or reference, removed or damaged: refused by name, or the same predictions."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from studies import cells, raised_by_us, reference

import sc_drugresp as sdr
from sc_drugresp.models import Reference, ResponseModel

KINDS, QUICK = ("logistic", "mlp", "slot", "tuned", "reference"), ("tuned", "reference")
REPLACEMENTS: dict[str, Any] = {
    "null": None,
    "text": "x",
    "number": 7,
    "list": [1, "a"],
    "flag": True,
    "dict": {"a": 1},
}
MATRIX = np.random.default_rng(0).normal(size=(4, 120))


@cache
def trained(kind: str) -> Any:
    """A model that holds every file that models of its kind can have."""
    if kind == "reference":
        return reference()
    adata = cells()
    if kind == "slot":
        adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(adata.n_obs, 4))
        return sdr.tl.train_response(adata, use_rep="X_mine")
    model = sdr.tl.train_response(adata, model="pca", head="mlp" if kind == "mlp" else "logistic", n_comps=5)
    if kind != "tuned":
        return model
    adapter = {"config": {"r": 2, "target": ["a"]}, "tensors": {"a.lora_A.weight": torch.ones(2, 3)}}
    weights = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.arange(3)}
    history = [{"epoch": 1.0, "loss": 0.5}]
    return ResponseModel(**{**vars(model), "adapter": adapter, "weights": weights, "history": history})


def load(folder: Path, expected: Any) -> Any:
    return type(expected).load(folder)


def answer(model: Any) -> list[np.ndarray]:
    """What a model predicts, and everything beside the head that predictions use."""
    if isinstance(model, Reference):
        tables = [
            model.drugs.select_dtypes("number").sort_index(axis=1).to_numpy(),
            model.errors,
            model.recalibration,
            model.centroids,
        ]
        return [model.z(model.predict(MATRIX)), *tables, *(shift.values for shift in model.shifts.values())]
    logit = model.logit(MATRIX[:, : model.dim])
    parts = [array for _, (_, arrays) in sorted(model.trust.parts().items()) for _, array in sorted(arrays.items())]
    embedder = [] if model.embedder is None else [array for _, array in sorted(model.embedder.state()[1].items())]
    tensors = [
        one for part in (model.weights, (model.adapter or {}).get("tensors")) for _, one in sorted((part or {}).items())
    ]
    return [logit, model.trust.calibration.probability(logit), *parts, *embedder, *(t.float().numpy() for t in tensors)]


def same(found: Any, expected: Any) -> None:
    for one, other in zip(answer(found), answer(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one, np.float64), np.asarray(other, np.float64))


def refused_or_same(folder: Path, expected: Any, name: str, what: str) -> bool:
    """Load a damaged folder; whether it was refused. The error is ours and names the file."""
    try:
        found = load(folder, expected)
    except (ValueError, FileNotFoundError) as error:
        raised_by_us(error, what, name)
        return True
    same(found, expected)
    return False


@pytest.fixture(params=[kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def saved(request, tmp_path) -> tuple[Any, Path]:
    model = trained(request.param)
    model.save(tmp_path / "m")
    same(load(tmp_path / "m", model), model)
    return model, tmp_path / "m"


def attack(saved: tuple[Any, Path], name: str, change: Callable[[Path], object], what: str) -> bool:
    """Damage one file of a copy."""
    model, folder = saved
    place = shutil.copytree(folder, folder.with_name("damaged"))
    change(place / name)
    refused = refused_or_same(place, model, name, f"{name}: {what}")
    shutil.rmtree(place)
    return refused


FILES: dict[str, Callable[[Path], object]] = {
    "removed": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one byte less": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "one byte more": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a bit flipped": lambda file: file.write_bytes(file.read_bytes()[:-9] + bytes([file.read_bytes()[-9] ^ 1]) + file.read_bytes()[-8:]),
    "text": lambda file: file.write_text("<!doctype html><title>Log in</title>"),
    "not UTF-8": lambda file: file.write_bytes(b"\xff\xfe\x00{"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a long header": lambda file: file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:]),
    "a list": lambda file: file.write_text("[1, 2]"),
    "a dangling link": lambda file: (file.unlink(), file.symlink_to("nowhere")),
}  # fmt: skip


def test_every_file(saved):
    for file in sorted(saved[1].iterdir()):
        for what, change in FILES.items():
            assert attack(saved, file.name, change, what), (file.name, what)


def tensor_changes(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "one row less", array[:-1] if array.ndim else array[None]
    yield "one axis more", array[None]
    yield "another dtype", array.astype(np.float16)
    yield "integers", np.nan_to_num(array, posinf=9, neginf=-9).astype(np.int64)
    yield "no values", np.empty((0, *array.shape[1:]), array.dtype)
    if array.size and array.dtype.kind == "f":
        for value in (np.nan, np.inf, -np.inf, 3.25):
            changed = array.copy()
            changed.flat[0] = value
            yield f"one value {value}", changed


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_every_tensor(saved):
    refused = 0
    for file in sorted(saved[1].glob("*.safetensors")):
        if file.name.startswith(("encoder", "adapter")):
            continue  # bfloat16; their bytes are attacked above
        arrays = load_file(file)
        for tensor, array in arrays.items():
            for what, changed in tensor_changes(array):
                if (
                    changed.dtype == array.dtype
                    and changed.shape == array.shape
                    and changed.tobytes() == array.tobytes()
                ):
                    continue
                named = {**arrays, tensor: np.ascontiguousarray(changed)}
                refused += attack(saved, file.name, lambda place, new=named: save_file(new, place), f"{tensor} {what}")
            less = {name: one for name, one in arrays.items() if name != tensor}
            assert attack(saved, file.name, lambda place, new=less: save_file(new, place), f"without {tensor}")
        more = {**arrays, "more": np.ones(2)}
        assert attack(saved, file.name, lambda place, new=more: save_file(new, place), "with one more")
    assert refused > 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: np.where(np.arange(a.size) == 1, np.nan, a), r"tensor 'coef' has values with NaN or infinity, expected that are finite"),
        (lambda a: a[:-1], r"tensor 'coef' has shape \[4\], expected \[5\]"),
        (lambda a: a.astype(np.float16), r"tensor 'coef' has dtype F16, expected F64"),
        (lambda a: a + 1, r"SHA-256"),
    ],
)  # fmt: skip
def test_the_error_says_file_tensor_expected_and_found(tmp_path, change, message):
    trained("logistic").save(tmp_path / "m")
    head = tmp_path / "m" / "head.safetensors"
    arrays = load_file(head)
    save_file({**arrays, "coef": change(arrays["coef"])}, head)
    with pytest.raises(ValueError, match=rf"head\.safetensors is damaged.*{message}"):
        ResponseModel.load(tmp_path / "m")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys at every depth, and the first item of every list."""
    keys = list(value) if isinstance(value, dict) else range(min(len(value), 1)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from paths(value[key], (*path, key))


def test_every_key_of_the_json(saved):
    model, folder = saved
    file = folder / ("reference.json" if isinstance(model, Reference) else "model.json")
    whole, refused, total = json.loads(file.read_text()), 0, 0
    every = list(paths(whole))
    for path in every[:: len(every) // 100 + 1]:
        for what in ("delete", *REPLACEMENTS):
            meta = copy.deepcopy(whole)
            place: Any = meta
            for key in path[:-1]:
                place = place[key]
            if what == "delete":
                del place[path[-1]]
            elif place[path[-1]] == REPLACEMENTS[what] and type(place[path[-1]]) is type(REPLACEMENTS[what]):
                continue
            else:
                place[path[-1]] = REPLACEMENTS[what]
            file.write_text(json.dumps(meta))
            total += 1
            refused += refused_or_same(folder, model, str(folder), f"{path} {what}")
    assert refused == total > 100


def test_white_space_and_the_order_of_keys_do_not_matter(saved):
    model, folder = saved
    file = folder / ("reference.json" if isinstance(model, Reference) else "model.json")
    file.write_text(json.dumps(json.loads(file.read_text()), indent=7, sort_keys=True))
    same(load(folder, model), model)


def test_files_beside_the_model_are_not_read(saved):
    """A file that the model does not list changes nothing, whatever its name."""
    model, folder = saved
    for name in ("encoder.safetensors", "adapter_model.safetensors", "bags.safetensors", "embedder.safetensors"):
        if not (folder / name).exists():
            save_file({"a": np.ones(2)}, folder / name)
    same(load(folder, model), model)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", ""])
def test_a_seal_names_no_file_elsewhere(tmp_path, name):
    """Not even one that was made with the right hash."""
    from sc_drugresp._core import seal

    trained("logistic").save(tmp_path / "m")
    meta = json.loads((tmp_path / "m" / "model.json").read_text())
    meta.pop("seal")
    files = {name: {"sha256": "0"}}
    meta["seal"] = {"content": seal._digest({**meta, "seal": files}), "files": files}
    (tmp_path / "m" / "model.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="no file beside it"):
        ResponseModel.load(tmp_path / "m")
