"""`pp.suggest_malignant`: which cells may be malignant, by marker genes, for the user to confirm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import MalignantKeys
from .._core.log import logger
from .._data.compartments import UNASSIGNED, assign_compartments, compartments
from .._data.counts import read_counts
from .._data.modalities import Target, as_adata, observations
from .._data.obs import as_text, read_column

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import SlotName

_LEAST_MARKERS = 10


@doc_params()
@checked
def suggest_malignant(
    data: AnnData | MuData,
    *,
    groupby: str | None = None,
    layer: str | None = None,
    key_added: SlotName | None = None,
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Suggest which cells of a solid tumor may be malignant: those without markers of blood or stroma.

    The suggestion rests on a short table of canonical marker genes and is meant to be read and confirmed. It cannot tell
    a malignant cell from a normal cell of the same tissue, which copy numbers can (for example infercnvpy), and says
    nothing about leukemia, lymphoma and myeloma, whose malignant cells are blood cells. No cell is removed.

    Parameters
    ----------
    {data}
    groupby
        Column of `.obs` with clusters. All cells of a cluster then get what most of them say, which mends drop-outs.
    {layer}
    {key_added}
    {modality}
    {copy}

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Sets the following fields:

    `.obs['suggested_malignant' | key_added]` : :class:`pandas.Series` (dtype `bool`)
        No markers of immune or stromal cells; use it as `malignant_key` once you have looked at it.
    `.obs['suggested_malignant_compartment' | key_added + '_compartment']` : :class:`pandas.Series` (dtype `category`)
        T cell, fibroblast, epithelial cell and so on, or `unassigned`.
    `.uns['suggested_malignant' | key_added]` : :class:`dict`
        `shares` of the compartments, `markers` that were found of each, and the parameters.

    Raises
    ------
    ValueError
        The matrix is scaled, or holds fewer than ten of the marker genes.
    KeyError
        The column does not exist.

    Examples
    --------
    >>> import anndata as ad, numpy as np, sc_drugresp as sdr
    >>> genes = ["CD3D", "CD3E", "CD2", "EPCAM", "KRT8", "KRT18", "LYZ", "CD68", "COL1A1", "DCN"]
    >>> counts = np.zeros((2, 10), dtype=np.float32)
    >>> counts[0, :3], counts[1, 3:6] = 5, 5
    >>> adata = ad.AnnData(counts)
    >>> adata.var_names = genes
    >>> sdr.pp.suggest_malignant(adata)
    >>> adata.obs["suggested_malignant_compartment"].tolist()
    ['T cell', 'epithelial cell']
    """
    target = Target(data, modality, copy, key_added)
    obs, keys = observations(data, modality=modality), MalignantKeys.of(key_added)
    groups = None if groupby is None else as_text(read_column(obs, groupby, "groupby"))
    source = read_counts(as_adata(data, modality=modality), layer=layer, expect="any")
    found = assign_compartments(source)
    if found.n_markers.sum() < _LEAST_MARKERS:
        msg = (
            f"Only {found.n_markers.sum()} marker genes are in these data; at least {_LEAST_MARKERS} are needed. Check the "
            "gene names with pp.check(adata), or keep all genes instead of the variable ones."
        )
        raise ValueError(msg)
    names, malignant = found.name, found.parenchymal
    if groups is not None:
        names, malignant = names.copy(), malignant.copy()
        for group in np.unique(groups[groups != ""]):
            own = groups == group
            values, counts = np.unique(names[own], return_counts=True)
            names[own], malignant[own] = values[counts.argmax()], malignant[own].mean() > 0.5
    import pandas as pd

    table = compartments()
    categories = [*(item.name for item in table), UNASSIGNED]
    record = {
        "params": {"groupby": groupby or "", "layer": source.origin},
        "shares": found.shares(),
        "markers": {item.name: int(n) for item, n in zip(table, found.n_markers)},
    }
    out = target.write(
        obs={keys.malignant: malignant, keys.compartment: pd.Categorical(names, categories=categories)},
        uns={keys.uns: record},
    )
    logger.info(
        "added\n    %r, no markers of blood or stroma: %d of %d cells; look before you use it (adata.obs)\n    %r, the "
        "compartment (adata.obs)\n    %r, the evidence (adata.uns)",
        *(keys.malignant, int(malignant.sum()), len(malignant), keys.compartment, keys.uns),
    )
    return out
