"""Descriptions of parameters that many functions share, and the decorator that fills them in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .keys import GROUP_CANDIDATES

_NAMES = ", ".join(f"`{name}`" for name in GROUP_CANDIDATES)
F = TypeVar("F", bound=Callable[..., Any])

doc_adata = """adata
    Annotated data: in memory, a view, backed, dask or lazy."""
doc_data = """data
    :class:`~anndata.AnnData` (in memory, a view, backed, dask or lazy) or :class:`~mudata.MuData`."""
doc_cells = """data
    :class:`~anndata.AnnData` (in memory, a view, backed, dask or lazy), :class:`~mudata.MuData`, or the path of a `.h5ad`, `.zarr`
    or `.h5mu` file. A file is only read: the object that is returned holds the results, and its matrices stay on disk."""
doc_layer = """layer
    Matrix to read: a key of `.layers`, `'X'` or `'raw'`. `None` looks for raw counts in `.layers['counts']`,
    `.X` and `.raw` and logs which it took."""
doc_modality = """modality
    Modality of a :class:`~mudata.MuData` to work on. Ignored for :class:`~anndata.AnnData`."""
doc_label_key = """label_key
    Column of `.obs` with `sensitive` / `resistant`; missing values are allowed.
    See :func:`~sc_drugresp.pp.harmonize_labels`."""
doc_group_key = f"""group_key
    Column of `.obs` with the independent unit: patient, cell line or sample. `None` takes the first of
    {_NAMES} that has more than one value, and logs it."""
doc_reference = """reference
    What has learned from a screen of cell lines: a :class:`~sc_drugresp.models.Reference`, its name in
    :func:`~sc_drugresp.models.reference_table`, or its folder. `None` takes the small one of the package."""
doc_malignant_key = """malignant_key
    Column of `.obs` that says which cells are malignant (true or false, or words); the others get no answer. Without it all
    cells count, and a group of cells that look like blood or stroma is refused, see
    :func:`~sc_drugresp.pp.suggest_malignant`."""
doc_cancer = """cancer
    What the tumor is: a tissue, a cancer type or a TCGA code. `None` reads it from `.obs['cancer']` and the like. Groups that
    look like another lineage get no answer."""
doc_chemistry = """chemistry
    Platform of the cells, for example `'dropseq'`; `None` reads it from `.obs['platform']` and the like. For a platform whose
    shift the reference does not know, drugs are ranked without probability or interval."""
doc_use_rep = """use_rep
    Key of `.obsm` with the embedding to use."""
doc_rng = """rng
    Seed or :class:`numpy.random.Generator`. Global random states are neither read nor changed."""
doc_copy = """copy
    Return a changed copy and leave the input alone."""
doc_key_added = """key_added
    Base name that replaces the default one in every slot that is written."""
doc_read_key = """key_added
    The `key_added` under which the results were written; `None` reads the default name."""
doc_ax = """ax
    Axes to draw on; `None` makes a figure."""
doc_no_evaluation = """KeyError
    There is no evaluation of this name."""
doc_evaluated = """>>> import sc_drugresp as sdr
>>> adata = sdr.datasets.toy(n_samples=6, cells_per_sample=20, n_genes=100)
>>> options = sdr.tl.EvaluationOptions(baselines=False, n_boot=20, n_permutations=0)
>>> sdr.tl.evaluate(adata, model="pca", options=options)"""
doc_predicted = """>>> import sc_drugresp as sdr
>>> adata = sdr.datasets.toy(12, unlabeled=0.3)
>>> sdr.tl.predict_response(adata)"""
doc_ranked = """>>> import sc_drugresp as sdr
>>> adata = sdr.datasets.toy(n_samples=2, n_genes=12_000)
>>> sdr.tl.rank_drugs(adata, groupby="sample", malignant_key="cell_type", chemistry="dropseq", combine=2)"""
_SHARED = {name.removeprefix("doc_"): text for name, text in globals().items() if name.startswith("doc_")}


def doc_params(**texts: str) -> Callable[[F], F]:
    """Fill `{name}` fields of a docstring, keeping the indentation of the field.

    Every `doc_<name>` of this module is known by its name; `texts` adds others or replaces them.
    """
    texts = _SHARED | texts

    def decorate(function: F) -> F:
        lines = []
        for line in inspect.getdoc(function).splitlines():  # type: ignore[union-attr]
            name = line.strip()
            if name.startswith("{") and name.endswith("}") and name[1:-1] in texts:
                indent = line[: len(line) - len(line.lstrip())]
                lines += [indent + text if text else "" for text in texts[name[1:-1]].splitlines()]
            else:
                lines.append(line)
        function.__doc__ = "\n".join(lines)
        return function

    return decorate
