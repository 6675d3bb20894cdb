"""Hostile arguments, valid ones to put beside them, and what a refused call must leave alone."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from helpers import golden

import sc_drugresp as sdr
from sc_drugresp.models import PlatformShift, Reference, ResponseModel
from sc_drugresp.models._load import model_class
from sc_drugresp.models._registry import find

DOORS = ("datasets", "get", "models", "pl", "pp", "tl")
WITH_METHODS: dict[str, type] = {"ResponseModel": ResponseModel, "Reference": Reference}
"""Classes whose objects users hold, save and load."""
NEVER: dict[str, Any] = {
    "an object": object(),
    "a module": math,
    "a function": lambda: 0,
    "bytes": b"bytes",
    "a complex number": 1j,
    "NA": pd.NA,
    "NaT": np.datetime64("NaT"),
    "a type": int,
    "a matrix": np.eye(2),
    "a list of None": [None],
    "a list of objects": [object()],
}
"""Right for no argument that has a type."""
HOSTILE: dict[str, Any] = NEVER | {
    "None": None,
    "True": True,
    "False": False,
    "0": 0,
    "1": 1,
    "-1": -1,
    "2.5": 2.5,
    "10**18": 10**18,
    "10**400": 10**400,
    "NaN": float("nan"),
    "inf": float("inf"),
    "-inf": -np.inf,
    "empty text": "",
    "text": "no such",
    "text with /": "a/b",
    "text with NUL": "a\0b",
    "a surrogate": "\udcff",
    "long text": "x" * 400,
    "an empty list": [],
    "an empty tuple": (),
    "a set": {"no such"},
    "an empty dictionary": {},
    "a dictionary": {"no such": 1},
    "a list of text": ["no such"],
    "a list of numbers": [1, 2],
    "an empty array": np.array([]),
    "an array": np.arange(3.0),
    "an array of text": np.array(["no such"]),
    "a series": pd.Series([1.0, 2.0]),
    "a frame": pd.DataFrame({"a": [1.0]}),
    "a path": Path("no/such"),
    "this folder": Path(),
    "an empty object": AnnData(np.zeros((0, 0), dtype=np.float32)),
}


@dataclass
class World:
    """What valid calls need."""

    data: AnnData
    folder: Path
    by_name: dict[str, Any] = field(default_factory=dict)
    """Valid arguments by `function.argument`, or by the name of the argument alone."""
    objects: dict[str, Any] = field(default_factory=dict)
    """One of each class of `WITH_METHODS`."""

    def callable(self, name: str) -> Callable[..., Any]:
        owner, _, method = name.rpartition(".")
        return getattr(self.objects[owner], method) if owner in self.objects else public()[name]

    def valid(self, name: str, parameter: str) -> Any:
        return self.by_name.get(f"{name}.{parameter}", self.by_name.get(parameter, "no such"))


def make_world(folder: Path) -> World:
    """One small object that has been through every verb, and the files that other functions read."""
    adata = sdr.datasets.toy(8, 12, 600, timepoints=True)
    quick = sdr.tl.EvaluationOptions(baselines=False, random_weights=False, n_boot=5, n_permutations=0, n_pairings=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdr.tl.embed(adata, "pca", n_comps=5)
        model = sdr.tl.train_response(adata, use_rep="X_sdr_pca", group_key="sample")
        sdr.tl.predict_response(adata, model)
        sdr.tl.aggregate(adata, "sample")
        sdr.tl.evaluate(adata, use_rep="X_sdr_pca", group_key="sample", options=quick)
        sdr.tl.rank_drugs(adata, groupby="sample", cancer="breast", chemistry="dropseq", combine=2)
        sdr.tl.state_control(adata, "timepoint", "pre", use_rep="X_sdr_pca", group_key="sample")
    model.save(folder / "saved")
    valid = {
        "key": "response",
        "treatment_key": "timepoint",
        "untreated": "pre",
        "line_key": "sample",
        "chemistry": "dropseq",
        "drug": "erlotinib",
        "name": "pca",
        "model": "pca",
        "screen": "gdsc2",
        "path": folder / "page.html",
        "group_key": "sample",
        "datasets.load.name": "GSE149214",
        "datasets.screen.name": "gdsc2",
        "models.load.name": "scgpt",
        "models.load.checkpoint": golden("scgpt").weights,
        "tl.predict_response.model": model,
        "tl.evaluate.options": quick,
        "tl.train_response.model": "pca",
        "tl.rank_drugs.groupby": "sample",
        "models.distill.teacher": "pca",
        "models.distill.epochs": 1,
        "models.distill.width": 4,
        "models.distill.n_genes": 20,
        "tl.ask_llm.base_url": "http://127.0.0.1:9/v1",
        "tl.ask_llm.dry_run": True,
        "tl.ask_llm.options": sdr.tl.LLMOptions(max_seconds=0.1, most_errors=1, timeout=1.0),
    }
    embedding = np.asarray(adata.obsm["X_sdr_pca"])
    valid |= {
        "embedding": embedding,
        "groups": adata.obs["sample"].to_numpy(),
        "ResponseModel.save.path": folder / "new",
    }
    valid |= {"ResponseModel.load.path": folder / "saved", "Reference.save.path": folder / "reference"}
    reference = Reference.load()
    genes = len(reference.genes)
    valid |= {"Z": np.zeros((2, genes)), "response": np.zeros(len(reference.drugs))}
    valid |= {f"tl.EmbeddingRun.{name}": 1 for name in ("n_cells", "dim", "block_cells", "blocks")}
    valid["shift"] = PlatformShift("mine", np.zeros(genes), ("a", "b"))
    return World(adata, folder, valid, {"ResponseModel": model, "Reference": reference})


@cache
def public() -> dict[str, Any]:
    """Functions and classes of options behind every door, by name."""
    found = {}
    for door in DOORS:
        module = importlib.import_module(f"sc_drugresp.{door}")
        found |= {f"{door}.{name}": getattr(module, name) for name in module.__all__}
    functions = {name: thing for name, thing in found.items() if not inspect.isclass(thing)}
    options = {name: thing for name, thing in found.items() if inspect.isclass(thing) and name.startswith("tl.")}
    methods = {
        f"{name}.{method}": function
        for name, cls in WITH_METHODS.items()
        for method, function in inspect.getmembers(cls, callable)
        if not method.startswith("_") and method in vars(cls)
    }
    return {"report": sdr.report} | options | functions | methods


def arguments(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Its parameters, without those that collect others."""
    collecting = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind not in collecting}


def options(function: Callable[..., Any], valid: dict[str, Any]) -> dict[str, inspect.Parameter]:
    """Options of the model that a valid call names, where the function hands them on."""
    takes = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    model = valid.get("model", valid.get("name")) if takes else None
    if model is None:
        return {}
    cls = model_class(find(model)[0])
    return arguments(getattr(cls, "Config", cls))


def valid_call(world: World, name: str, function: Callable[..., Any], data: AnnData) -> dict[str, Any]:
    """Arguments of a call with which nothing is wrong: those that are required, and what makes it quick."""
    found = {}
    for parameter in arguments(function).values():
        if parameter.name == "data":
            found["data"] = data
        elif parameter.default is parameter.empty or f"{name}.{parameter.name}" in world.by_name:
            found[parameter.name] = world.valid(name, parameter.name)
    return found


def state() -> list[Any]:
    """What belongs to the user and to no call: generators, environment, figures, files here."""
    legacy = np.random.get_state()
    files = sorted(path.name for path in Path.cwd().iterdir())
    return [random.getstate(), legacy[1].tobytes(), legacy[2], dict(os.environ), plt.get_fignums(), files]


def slots(adata: AnnData) -> list[Any]:
    """Names in every slot of an object, and which values they name."""
    held = [
        (list(slot.keys()), [id(value) for value in slot.values()]) for slot in (adata.obsm, adata.uns, adata.layers)
    ]
    return [adata.shape, list(adata.obs.columns), list(adata.var.columns), id(adata.X), held]


def content(adata: AnnData) -> list[Any]:
    """Hashes of what an object holds for every cell and gene."""
    frames = [pd.util.hash_pandas_object(frame.astype(str)).sum() for frame in (adata.obs, adata.var)]
    return [
        *frames,
        hash(adata.X.data.tobytes()),
        *(hash(np.asarray(value).tobytes()) for value in adata.obsm.values()),
    ]


def outcome(call: Callable[[], Any]) -> BaseException | None:
    """What a call raised, without warnings; an error nobody may raise here is not caught."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as error:  # noqa: BLE001
            return error
    return None


def origin(error: BaseException) -> str:
    """Module that raised an error."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals["__name__"]


ALLOWED = (ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError, PermissionError, ConnectionError)
"""What docstrings promise; the last two where terms are not accepted, or the network is off."""


def ordinary(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether the annotation itself names the type of a value: such calls do their work, which takes its time."""
    words = set(re.findall(r"\w+", str(parameter.annotation)))
    kind = "PathLike" if isinstance(value, Path) else type(value).__name__
    return kind in words or (value is None and "None" in words) or (kind == "int" and "Rng" in words)


def attacks(world: World, name: str, *, thorough: bool) -> Iterator[tuple[str, str]]:
    """Every hostile call of a function, as `(what, problem)`; no problem where it was answered as it should be.

    Unless it is `thorough`, a slow function is spared the values of the types that it takes.
    """
    function = world.callable(name)
    data = world.data.copy()
    valid = valid_call(world, name, function, data)
    start = time.perf_counter()
    usual = outcome(lambda: function(**valid))
    slow = time.perf_counter() - start > 0.1
    plt.close("all")
    data = world.data.copy()
    seen = content(data)
    for parameter in (arguments(function) | options(function, valid)).values():
        for label, value in HOSTILE.items():
            if slow and not thorough and ordinary(parameter, value):
                continue
            call = valid | ({"data": data} if "data" in valid else {}) | {parameter.name: value}
            before, held = state(), slots(data)
            error = outcome(lambda: function(**call))  # noqa: B023
            after, unchanged = state(), held == slots(data)
            yield f"{name}({parameter.name}={label})", verdict(parameter, label, error, usual, before, after, unchanged)
            plt.close("all")
            if not unchanged:
                data, seen = world.data.copy(), content(world.data)
    if seen != content(data):
        yield name, "changed values inside the object, then failed"


def verdict(
    parameter: inspect.Parameter,
    label: str,
    error: BaseException | None,
    usual: BaseException | None,
    before: list[Any],
    after: list[Any],
    unchanged: bool,
) -> str:
    """What is wrong with the answer to a call; `usual` is what the valid call raises, for want of files or a network."""
    if error is None:
        typed = parameter.annotation not in {"Any", parameter.empty}
        if typed and label in NEVER:
            return "accepted"
        return "" if before[:4] == after[:4] else "changed generators or environment"
    if not unchanged:
        return f"changed the object, then failed: {error!r:.150}"
    if before != after:
        return f"changed generators, environment, figures or files, then failed: {error!r:.150}"
    if type(error) is type(usual) and str(error) == str(usual):
        return ""
    if label == "an empty object":  # it has the right type; what lacks is told by the name of the column or the matrix
        return "" if origin(error).startswith("sc_drugresp") else problem(error, parameter.name, HOSTILE[label])
    return problem(error, parameter.name, HOSTILE[label])


def problem(error: BaseException, argument: str, value: Any) -> str:
    """What is wrong with an error; nothing, if it is ours and names the argument, or the file that is not there."""
    said = f"{type(error).__name__}: {str(error)[:150]}"
    if not origin(error).startswith("sc_drugresp"):
        return f"came from {origin(error)}: {said}"
    if not isinstance(error, ALLOWED):
        return f"is of an unusual type: {said}"
    if isinstance(error, FileNotFoundError | FileExistsError) and str(value) in str(error):
        return ""
    if "sizes of its configuration" in str(error):  # a size that the files of a checkpoint contradict: they are named
        return ""
    named = argument.casefold() in str(error).casefold() or isinstance(error, PermissionError | ConnectionError)
    return "" if named else f"does not name the argument: {said}"
