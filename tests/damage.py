"""Copies of recorded checkpoints that a test may damage, and a registry in which they are published ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import golden
from safetensors.torch import load_file, save_file

import sc_drugresp as sdr
from sc_drugresp._core.hashing import sha256
from sc_drugresp.models import _registry
from sc_drugresp.models._hub import locate
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find, registry
from sc_drugresp.models._spec import ModelSpec
from sc_drugresp.models._weights import innermost, read_state

Change = Callable[[dict[str, torch.Tensor]], Any]


class Copy:
    """A writable copy of a recorded checkpoint whose tensors a test changes in place, whatever they are wrapped in."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = model
        self.name = "{}.{}".format(*full_name(model))
        self.folder = golden(model).copy(folder)
        spec, row = find(self.name)
        self.files = locate(spec, row, self.folder)
        self.weights = self.files["weights"]

    def load(self, **options: Any) -> Any:
        return sdr.models.load(self.name, checkpoint=self.folder, **options)

    def change(self, change: Change) -> None:
        if self.weights.suffix == ".safetensors":
            state = load_file(self.weights)
            change(state)
            save_file({name: x.contiguous() for name, x in state.items()}, self.weights)
            return
        content = read_state(self.weights)
        for state in self._tables(content):
            for name in list(state):
                state[name] = state[name].clone()  # not in the mapped file
            change(state)
        self.weights.unlink()
        torch.save(content, self.weights)

    def _tables(self, content: Any) -> Iterator[dict[str, torch.Tensor]]:
        yield innermost(content["cell"] if self.model == "scfoundation" else content)

    @property
    def state(self) -> dict[str, torch.Tensor]:
        content = read_state(self.weights)
        return dict(next(self._tables(content)))

    def used(self) -> list[str]:
        """Published names of matrices that the network reads, those of the first layer last."""
        cls = model_class(find(self.name)[0])
        ours = {n: cls.remap({n: x}) for n, x in self.state.items() if x.ndim == 2 and x.is_floating_point()}
        place = {name: next(iter(found)) for name, found in ours.items() if found}
        read = [name for name, own in place.items() if not own.startswith("layers.") or own.startswith("layers.0.")]
        return sorted(read, key=lambda name: place[name].startswith("layers."))

    def last_layer(self) -> list[str]:
        cls = model_class(find(self.name)[0])
        state = {n: x for n, x in self.state.items() if cls.remap({n: x})}
        number = {n: int(next(iter(cls.remap({n: x}))).split(".")[1]) for n, x in state.items() if _in_layer(cls, n, x)}
        return [n for n, i in number.items() if i == max(number.values())]


def _in_layer(cls: Any, name: str, tensor: torch.Tensor) -> bool:
    return next(iter(cls.remap({name: tensor}))).startswith("layers.")


def full_name(model: str) -> tuple[str, str]:
    spec, row = find("geneformer.v1-10m" if model == "geneformer" else model)
    return spec.name, row.tag


def publish(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the registry state sizes and hashes of a copy, and of another checkpoint with one layer more."""
    encoder = copy.load()
    spec, row = find(copy.name)
    files = {}
    for role, file in row.files.items():
        own = vars(file) | {"bytes": None, "md5": None, "sha256": None, "about_bytes": None}
        if role in copy.files and copy.files[role].name == file.name:
            own["sha256"] = sha256(copy.files[role])
        files[role] = type(file)(**own)
    sizes = {name: getattr(encoder.config, name) for name in row.sizes}
    mine = type(row)(**(vars(row) | {"files": files, "sizes": sizes}))
    unknown = {role: type(file)(**(vars(file) | {"sha256": None})) for role, file in files.items()}
    deeper = sizes | {"layers": sizes["layers"] + 1}
    other = type(row)(**(vars(row) | {"tag": "other", "files": unknown, "sizes": deeper}))
    changed = ModelSpec(**(vars(spec) | {"default": row.tag, "checkpoints": {row.tag: mine, "other": other}}))
    rows = {**registry(), spec.name: changed}
    monkeypatch.setattr(_registry, "registry", lambda: rows)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Other bytes than `content`: a flipped bit, a changed byte, a cut, a gap, a repeated, exchanged or blanked part."""
    out = bytearray(content)
    place, length = int(rng.integers(len(out))), int(rng.integers(1, 9))
    match int(rng.integers(8)):
        case 0 | 1:
            out[place] ^= 1 << int(rng.integers(8))
        case 2:
            out[place] = int(rng.integers(256))
        case 3:
            del out[place:]
        case 4:
            del out[place : place + length]
        case 5:
            out[place:place] = out[max(0, place - length) : place] or b"0"
        case 6:
            out[place : place + length] = bytes(len(out[place : place + length]))
        case _:
            out[place : place + length] = rng.integers(
                256, size=len(out[place : place + length]), dtype=np.uint8
            ).tobytes()
    return bytes(out)
