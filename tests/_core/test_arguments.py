"""Arguments follow the annotations: what is accepted, what is refused, and that reading them loads nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._core.annotations import kind_of
from sc_drugresp._core.arguments import checked, kinds_of
from sc_drugresp._core.keys import is_slot_name
from sc_drugresp._core.kinds import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Callable


class Text(str):
    """A name of somebody's own."""

    __slots__ = ()


AXES = "sc_drugresp.pl._roc"
RECIPE = "sc_drugresp._response.recipe"


@pytest.mark.parametrize(
    ("annotation", "module", "good", "bad"),
    [
        ("int", RECIPE, [3, np.int64(3), np.uint8(3)], [True, 3.0, "3", None, np.bool_(True), 2**80]),
        ("float", RECIPE, [3, 0.5, np.float32(0.5), np.int32(1)], [float("nan"), np.inf, "1", True, None, 1j]),
        ("bool", RECIPE, [True, np.bool_(False)], [1, 0, "yes", None]),
        ("str | None", RECIPE, ["", Text("a"), np.str_("a"), None], [b"a", Path("a"), ["a"], "\udcff"]),
        ("str | PathLike[str] | None", RECIPE, ["a", Path("a"), Path(), None], [b"a", "a\0b", "", "x" * 300, 3]),
        ("Mode", RECIPE, ["frozen", np.str_("lora")], ["Frozen", None, ["frozen"], 3]),
        ("bool | Literal['auto']", RECIPE, [True, "auto"], ["Auto", 1, None]),
        ("Literal[2] | None", RECIPE, [2, np.int8(2), None], [True, 3, "2"]),
        ("Mapping[str, Any]", RECIPE, [{}, {"a": object()}], [{1: 2}, [("a", 1)], None]),
        (
            "Sequence[str]",
            AXES,
            [[], ("a",), {"a"}, {"a": 1}.keys(), np.array(["a"]), pd.Index(["a"]), pd.Series(["a"])],
            ["a", {"a": 1}, [1], [None], None, (x for x in "a"), np.array([["a"]])],
        ),
        ("Axes | None", AXES, [None], ["ax", object(), type("Axes", (), {})()]),
        ("AnnData | MuData", AXES, [ad.AnnData()], [None, pd.DataFrame(), type("AnnData", (), {})()]),
        ("np.ndarray", RECIPE.replace("recipe", "model"), [np.eye(2), pd.DataFrame()], [[1], None, np.float64(1)]),
        ("FineTuning | None", RECIPE, [None, sdr.tl.FineTuning()], [{}, sdr.tl.EvaluationOptions()]),
        ("ReferenceLike", "sc_drugresp.get._reliability", [None, "a", Path("a")], [3, ["a"]]),
        ("Rng", "sc_drugresp.tl._embed", [0, np.random.default_rng(0)], [-1, None, 0.0, np.random.RandomState(0)]),
        ("SlotName | None", "sc_drugresp.tl._embed", [None, "a b"], ["", "a/b", 3, "x" * 300]),
    ],
)
def test_what_fits_an_annotation(annotation, module, good, bad):
    kind = kind_of(annotation, module)
    assert kind is not ANYTHING
    assert [value for value in good if not kind.fits(value)] == []
    assert [value for value in bad if kind.fits(value)] == []


def test_a_real_axes_and_its_subclasses_fit():
    import matplotlib.pyplot as plt

    kind = kind_of("Axes | None", AXES)
    assert all(kind.fits(plt.figure().add_subplot(projection=name)) for name in (None, "polar"))
    plt.close("all")


def test_what_cannot_be_told_is_not_refused():
    assert all(kind_of(text, RECIPE) is ANYTHING for text in ("Any", "Unheard", "pd.Nothing.At.All", "int | Any"))
    assert kind_of(inspect.Parameter.empty, RECIPE) is ANYTHING


@checked
def example(data: Any, n: int = 3, *names: str, share: float = 0.5, **others: Any) -> tuple[Any, ...]:
    """Say what came."""
    return data, n, names, share, others


def test_calls_signature_and_text_stay_as_they_were():
    assert example("d", 4, "a", share=0.1, other=object)[:4] == ("d", 4, ("a",), 0.1)
    assert str(inspect.signature(example)).startswith("(data: 'Any', n: 'int' = 3, *names: 'str', share: 'float' = 0.5")
    assert (example.__doc__, example.__name__) == ("Say what came.", "example")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'data'"):
        example()
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        sdr.models.table(nothing=1)


def test_values_are_handed_on_as_they_are():
    given = [np.float32(0.25), np.int16(2)]
    _, n, _, share, _ = example("d", given[1], share=given[0])
    assert n is given[1]
    assert share is given[0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: sdr.datasets.toy(rng=None), TypeError, "`rng` must be .*, found None. Leave it out for the default, 0."),
        (lambda: sdr.datasets.toy(1), ValueError, r"`n_samples` must be a whole number of at least 2 .*, found 1 \(int\)"),
        (lambda: sdr.datasets.toy(organism="rat"), ValueError, r"`organism` must be one of .*, found 'rat' \(str\)"),
        (lambda: sdr.tl.FineTuning(alpha=2.0), TypeError, r"`alpha` must be a whole number .*, found 2.0 \(float\)"),
        (lambda: sdr.get.metrics_df(pd.DataFrame()), TypeError, r"found an object of type DataFrame. Put it into one: anndata"),
        (lambda: sdr.models.load("pca", n_comps="x"), TypeError, r"`n_comps` must be a whole number .*, found 'x' \(str\)"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected_and_found(call: Callable[[], Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        call()


def test_every_public_function_is_checked():
    doors = (sdr.datasets, sdr.get, sdr.models, sdr.pl, sdr.pp, sdr.tl)
    found = [getattr(door, name) for door in doors for name in door.__all__]
    functions = [thing for thing in [*found, sdr.report] if inspect.isfunction(thing)]
    assert len(functions) > 50
    for function in functions:
        kinds = kinds_of(function)
        assert hasattr(function, "__wrapped__") or not inspect.signature(function).parameters, function
        for name, parameter in inspect.signature(function).parameters.items():
            free = parameter.annotation in {"Any", "object"} or parameter.kind is parameter.VAR_KEYWORD
            assert free or name in kinds, (function, name)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_names_that_are_slots_come_back_from_files(tmp_path):
    names = ["a", "a b", "é", ".a", "__a", "a:b*?", "$a$", "x" * 200, "mapping", "a.b", "-1"]
    assert [name for name in names if not is_slot_name(name)] == []
    adata = ad.AnnData(np.ones((2, 2), dtype=np.float32))
    adata.obs_names = adata.var_names = ["1", "2"]
    for name in names:
        adata.obs[name], adata.obsm[name], adata.uns[name] = [1, 2], np.ones((2, 2)), {"a": 1}
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        assert all(set(names) == set(slot) for slot in (again.obs, again.obsm, again.uns))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "_index", "a/b", "/", "a\\b", "a\0b", "\n", "\udcff", "x" * 201, ".zgroup", 3, None, b"a"]
)
def test_names_that_files_cannot_hold_are_no_slots(name):
    assert not is_slot_name(name)
    adata = sdr.datasets.toy(4, 5, 50)
    if name is not None:
        with pytest.raises((TypeError, ValueError), match="`key_added` must be a name without '/'"):
            sdr.pp.split(adata, key_added=name)
    assert list(adata.uns) == ["toy"]


def test_reading_annotations_loads_nothing():
    heavy = ("torch", "sklearn", "scanpy", "matplotlib", "mudata", "lightning", "peft", "pydantic")
    code = (
        "import sys, sc_drugresp as sdr\n"
        "from sc_drugresp._core.arguments import kinds_of\n"
        "doors = (sdr.datasets, sdr.get, sdr.models, sdr.pp, sdr.tl)\n"
        "found = [kinds_of(getattr(door, name)) for door in doors for name in door.__all__ if name != 'CellEncoder']\n"
        f"print(sum(map(len, found)) > 250, *[name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


def test_large_seeds_are_taken_everywhere():
    adata = sdr.datasets.toy(8, 6, 60, rng=2**40)
    options = sdr.tl.EvaluationOptions(random_weights=False, n_boot=5, n_permutations=0, n_pairings=1)
    sdr.tl.evaluate(adata, model="pca", group_key="sample", options=options, rng=2**40 + 1)
    assert adata.uns["evaluation"]["params"]["rng"] == 2**40 + 1
