"""The package as a whole: signatures, docstrings, layers, lightness, house rules, what is shipped."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import sc_drugresp as sdr
from sc_drugresp._core import keys as _keys

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "sc_drugresp"
FILES = sorted(path for path in SRC.rglob("*.py"))
PUBLIC = ("datasets", "get", "models", "pl", "pp", "tl")
HEAVY = (
    "torch", "peft", "transformers", "scanpy", "anndata", "lightning", "sklearn", "scvi", "matplotlib", "pandas",
    "scipy", "statsmodels", "pooch", "requests", "huggingface_hub", "mudata", "dask", "numba", "jinja2",
)  # fmt: skip


def load_script(name: str) -> Any:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAYERS = load_script("draw_layers")
ORDER = [name for name, _ in LAYERS.LAYERS]
"""Packages from the surface to the ground: the same list makes the picture in the documentation."""


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def public_names() -> list[str]:
    """`pp.check`, `tl.embed`, ...; resolving them is left to the tests, since it imports torch."""
    names = []
    for module_name in PUBLIC:
        module = importlib.import_module(f"sc_drugresp.{module_name}")
        names += [f"{module_name}.{name}" for name in module.__all__]
    return [*sorted(names), "report"]


NAMES = public_names()
WITHOUT_DATA = {"get.prompt", "get.reliability"}
"""About a question or a drug, not about cells."""
ANNDATA_NAMES = [
    name for name in NAMES if name.split(".")[0] in {"pp", "tl", "pl", "get", "report"} and name not in WITHOUT_DATA
]


def resolve(name: str) -> Any:
    thing: Any = sdr
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# ---------------------------------------------------------------------------------------------------- signatures


def test_every_public_name_resolves():
    assert set(sdr.__all__) >= {*PUBLIC, "report", "settings"}
    assert all(getattr(sdr, name) is not None for name in sdr.__all__)
    assert len(NAMES) > 20
    assert all(callable(resolve(name)) for name in NAMES)


@pytest.mark.parametrize("name", ANNDATA_NAMES)
def test_data_comes_first_and_few_are_positional(name):
    if inspect.isclass(resolve(name)):  # options of a verb, such as `tl.FineTuning`
        return
    parameters = list(inspect.signature(resolve(name)).parameters.values())
    assert parameters[0].name in {"data", "adata"}
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY and p.kind is not p.VAR_KEYWORD]
    assert len(positional) <= 3, [p.name for p in positional]


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_annotated_and_flags_are_keywords(name):
    signature = inspect.signature(resolve(name))
    assert inspect.isclass(resolve(name)) or signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter.name
        if isinstance(parameter.default, bool) and not inspect.isclass(resolve(name)):
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name
    if "copy" in signature.parameters:
        assert signature.parameters["copy"].default is False


# ---------------------------------------------------------------------------------------------------- docstrings

EVERYWHERE = {"GL05", "GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "SS06"}
FUNCTIONS_ONLY = {"SS05", "PR03", "PR07", "RT01", "YD01", "EX01"}


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_numpydoc(name):
    from numpydoc.validate import validate

    wanted = EVERYWHERE if inspect.isclass(resolve(name)) else EVERYWHERE | FUNCTIONS_ONLY
    assert [error for error in validate(f"sc_drugresp.{name}")["errors"] if error[0] in wanted] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_described_and_no_other(name):
    from numpydoc.docscrape import NumpyDocString

    thing = resolve(name)
    documented = {
        part.strip().lstrip("*")
        for entry in NumpyDocString(inspect.getdoc(thing))["Parameters"]
        for part in entry.name.split(",")
    }
    if inspect.isclass(thing):  # the constructor of a model is for its authors
        return
    assert documented == set(inspect.signature(thing).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_is_filled_in_and_has_an_example(name):
    text = inspect.getdoc(resolve(name))
    assert re.findall(r"^\s*\{\w+\}\s*$|%\(\w+\)s", text, flags=re.MULTILINE) == []
    assert inspect.isclass(resolve(name)) or ">>> " in text


@pytest.mark.parametrize("name", NAMES)
def test_types_and_defaults_live_in_the_signature(name):
    text = inspect.getdoc(resolve(name))
    section = text.split("Parameters\n----------\n")[-1].split("\n\nReturns\n")[0] if "Parameters\n" in text else ""
    parameters = set(inspect.signature(resolve(name)).parameters)
    typed = [line for line in section.splitlines() if re.match(r"(\w+) : ", line) and line.split(" ")[0] in parameters]
    assert typed == []


def test_every_public_name_is_on_an_api_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    listed = set(re.findall(r"^\s{0,4}([a-zA-Z_.]+)\s*$", pages, flags=re.MULTILINE))
    assert sorted(set(NAMES) - listed) == []


# ---------------------------------------------------------------------------------------------------- lightness


def test_import_is_light_and_fast():
    code = (
        "import time; start = time.perf_counter(); import sc_drugresp as sdr; sdr.settings; "
        "seconds = time.perf_counter() - start; import sys; "
        f"print(seconds, *[name for name in {HEAVY} if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert [run.stderr for run in runs] == [""] * 3
    words = [run.stdout.split() for run in runs]
    assert all(len(w) == 1 for w in words), words
    assert min(float(w[0]) for w in words) < 0.5


SLOW = ("torch", "peft", "transformers", "lightning", "sklearn", "scanpy", "scvi")


def test_touching_every_public_name_loads_no_slow_library():
    """All but the base class of networks, which is a torch module."""
    names = [name for name in NAMES if name != "models.CellEncoder"]
    code = (
        f"import sys; from operator import attrgetter; import sc_drugresp as sdr; "
        f"[attrgetter(name)(sdr) for name in {names}]; sdr.models.available(); sdr.models.table(); "
        f"print(*[name for name in {SLOW} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_import_leaves_root_logger_and_warnings_alone():
    code = (
        "import logging, warnings; filters = list(warnings.filters); import sc_drugresp; "
        "print(logging.root.handlers, logging.root.level, filters == warnings.filters)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] 30 True"


# ---------------------------------------------------------------------------------------------------- layers


def type_only(module: ast.Module) -> set[int]:
    """Ids of nodes below `if TYPE_CHECKING:`."""
    return {
        id(node)
        for block in ast.walk(module)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported at run time, wherever in the file."""
    package = ["sc_drugresp", *path.relative_to(SRC).parts[:-1]]
    skip = type_only(tree(path))
    for node in ast.walk(tree(path)):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    own = path.relative_to(SRC).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ORDER, f"{own} has no place in the layers: add it to LAYERS in scripts/draw_layers.py"
    upwards = []
    for line, name in imported(path):
        parts = name.split(".")
        known = parts[0] == "sc_drugresp" and len(parts) > 1 and parts[1] in ORDER
        if known and ORDER.index(parts[1]) < ORDER.index(own):
            upwards.append(f"line {line}: {name}")
    assert upwards == []


def files_imported(path: Path) -> Iterator[Path]:
    """Our files that a file imports, also for types alone."""
    package = ["sc_drugresp", *path.relative_to(SRC).parts[:-1]]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")]
            for parts in (*([*module, alias.name] for alias in node.names), module):
                file = SRC.joinpath(*filter(None, parts[1:])).with_suffix(".py")
                if parts[0] == "sc_drugresp" and file.is_file() and file != path:
                    yield file


def test_no_circle_of_files():
    """What a file needs can be read before the file, types included."""
    graph = {path: set(files_imported(path)) for path in FILES}
    assert sum(map(len, graph.values())) > 300
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_picture_of_the_layers_is_up_to_date():
    assert LAYERS.PICTURE.read_text(encoding="utf-8") == LAYERS.draw(), "run python scripts/draw_layers.py"


@pytest.mark.parametrize("path", sorted((SRC / "tl").glob("_[!_]*.py")), ids=name_of)
def test_no_verb_imports_a_verb(path):
    assert [name for _, name in imported(path) if name.startswith("sc_drugresp.tl")] == []


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.relative_to(SRC).parts[0] in {"_nn", "_data", "genes", "names", "_stats"}],
    ids=name_of,
)
def test_inner_layers_do_not_know_anndata(path):
    if name_of(path) in {"_data/counts.py", "_data/modalities.py", "_data/opening.py"}:
        return
    assert [name for _, name in imported(path) if name.split(".")[0] in {"anndata", "mudata", "scanpy"}] == []


# ---------------------------------------------------------------------------------------------------- house rules


@pytest.mark.parametrize(
    "path",
    [*FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_no_file_is_long(path):
    limit = 600 if "tests" in path.parts else 400
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


BANNED_CALLS = {
    "np.random.seed", "numpy.random.seed", "torch.manual_seed", "torch.cuda.manual_seed_all", "logging.basicConfig",
    "pickle.load", "pickle.loads", "torch.set_default_dtype", "warnings.simplefilter", "warnings.filterwarnings",
    "nn.MultiheadAttention", "nn.TransformerEncoderLayer", "torch.nn.MultiheadAttention",
}  # fmt: skip


def violations(path: Path) -> Iterator[str]:
    inside_with = {
        id(node)
        for block in ast.walk(tree(path))
        if isinstance(block, ast.With) and "catch_warnings" in ast.unparse(block.items[0])
        for node in ast.walk(block)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in BANNED_CALLS and not (name.startswith("warnings.") and id(node) in inside_with):
                yield f"line {node.lineno}: {name}"
            if name == "print" and path.stem not in {"cli", "demo"}:
                yield f"line {node.lineno}: print"
            for keyword in node.keywords:
                if keyword.arg == "weights_only" and ast.unparse(keyword.value) != "True":
                    yield f"line {node.lineno}: weights_only={ast.unparse(keyword.value)}"
        elif isinstance(node, ast.Attribute) and node.attr in {"MultiheadAttention", "TransformerEncoderLayer"}:
            yield f"line {node.lineno}: {node.attr}"
        elif isinstance(node, ast.ExceptHandler) and (
            node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
        ):
            yield f"line {node.lineno}: too broad an except"
        elif isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc):
            yield f"line {node.lineno}: NotImplementedError"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_house_rules(path):
    assert list(violations(path)) == []
    assert re.findall(r"\b(?:TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8")) == []


def test_the_rules_bite(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import numpy as np\nnp.random.seed(0)\nprint(1)\ntorch.load(p, weights_only=False)\n"
        "try:\n    pass\nexcept Exception:\n    raise NotImplementedError\nlayer = nn.MultiheadAttention(2, 1)\n"
    )
    assert len(list(violations(path))) >= 6


def key_names() -> set[str]:
    """Every slot name that `_keys` defines."""
    values = {value for name, value in vars(_keys).items() if name.isupper() and isinstance(value, str)}
    for thing in vars(_keys).values():
        if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
            values |= {f.default for f in dataclasses.fields(thing) if isinstance(f.default, str)}
    return values - set(_keys.CALL_CLASSES)


SLOTS = {"obs", "var", "obsm", "varm", "uns", "layers"}


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "keys.py"], ids=name_of)
def test_slot_names_live_in_keys(path):
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Subscript):
            target, key = node.value, node.slice
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            target, key = node.func.value, node.args[0]
        else:
            continue
        if (
            isinstance(target, ast.Attribute)
            and target.attr in SLOTS
            and isinstance(key, ast.Constant)
            and key.value in key_names()
        ):
            found.append(f"line {node.lineno}: .{target.attr}[{key.value!r}]")
    assert found == []


def test_nothing_points_at_a_machine():
    pattern = re.compile(r"(?<![\w.])/(?:work|opt/sdr|root|home/\w+)/|(?<![\w.])/tmp/\w")
    folders = ("src", "tests", "docs", "benchmarks", "scripts", ".ci", ".github")
    names = [*(ROOT / f for f in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "noxfile.py"))]
    for folder in folders:
        names += [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".md", ".toml", ".yml", ".json", ".csv"}]
    ours = [p for p in names if p.is_file() and "_build" not in p.parts and p != Path(__file__).resolve()]
    assert len(ours) > 50
    assert [str(p.relative_to(ROOT)) for p in ours if pattern.search(p.read_text(encoding="utf-8"))] == []


# ---------------------------------------------------------------------------------------------------- what is shipped


def test_wheel_holds_data_and_types(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    wheel = Path(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {p for p in SRC.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {f"sc_drugresp/{p.relative_to(SRC).as_posix()}" for p in data} <= names
    assert "sc_drugresp/py.typed" in names
    assert any(name.startswith("sc_drugresp/models/registry/") for name in names)
    assert any(name.startswith("sc_drugresp/genes/tables/") for name in names)
    assert wheel.stat().st_size < 5_000_000
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_readme_has_exactly_two_setup_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m pip install .*$", text, flags=re.MULTILINE)
    assert commands == [f"python -m pip install nox && python -m nox -s {name}" for name in ("demo", "tests")]
