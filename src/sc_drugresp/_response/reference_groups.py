"""The groups of cells that a reference is asked about: clusters or clones of malignant cells, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.keys import GROUP_CANDIDATES
from .._core.log import logger
from .._core.rng import short_seed
from .._core.threads import threads_kept
from .._data.compartments import UNASSIGNED, assign_compartments, compartments
from .._data.obs import as_text, find_group, read_column
from .._data.treatment import treated_cells
from .._reference.abstain import MIN_CELLS
from .._reference.storage import DEFAULT
from .._stats.groups import spread_rows
from ..names import check_lineage, lineage_of

if TYPE_CHECKING:
    import pandas as pd

    from .._data.counts import CountSource
    from .._reference.reference import Reference

CANCER_COLUMNS = ("cancer", "cancer_type", "tumor_type", "disease", "diagnosis", "tissue")
CHEMISTRY_COLUMNS = ("chemistry", "platform", "technology", "assay", "protocol", "library_preparation")
BLOOD = frozenset({"blood", "lymphoid", "myeloid", "plasma cell"})
NORMAL_WORDS = frozenset(
    {"", "false", "0", "no", "normal", "healthy", "non-malignant", "nonmalignant", "stroma", "immune"}
)
MOST = 0.5
"""Share of a group that decides what the group is."""
SEPARATOR = " | "
_LEAST_MARKERS = 10
MOST_CLUSTERED = 50_000
"""Cells that clusters are found in; the others are assigned to them."""
_NEAREST, _BLOCK = 15, 65_536


@dataclass(frozen=True, eq=False)
class CellGroups:
    """Groups of cells, and what is known of each before any drug is looked at.

    Parameters
    ----------
    names, samples
        Name of each group, and the sample that it comes from.
    codes
        Group of each cell, -1 for cells that are left out; shape `(n_cells,)`.
    lineages
        Stated tissue of each group, `None` where unknown.
    treated
        Share of the cells of each group that were taken under treatment.
    kinds
        What most cells of each group are by marker genes, in words.
    reasons
        Why a group is no tumor, `''` where nothing speaks against it.
    chemistry
        Platform, if the reference knows its shift.
    warnings
        What is to be said of all of them.
    """

    names: list[str]
    samples: list[str]
    codes: np.ndarray
    lineages: list[str | None]
    treated: np.ndarray
    kinds: list[str]
    reasons: list[str]
    chemistry: str | None
    warnings: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """One row per group: `sample`, `n_cells`, `stated_lineage`, `markers`, `treated`."""
        import pandas as pd

        values = {
            "sample": self.samples,
            "n_cells": np.bincount(self.codes[self.codes >= 0], minlength=len(self.names)),
            "stated_lineage": [lineage or "" for lineage in self.lineages],
            "markers": self.kinds,
            "treated": self.treated,
        }
        return pd.DataFrame(values, index=pd.Index(self.names, name="group", dtype=object))


def group_cells(
    obs: pd.DataFrame,
    source: CountSource,
    reference: Reference,
    *,
    groupby: str | None,
    sample_key: str | None,
    malignant_key: str | None,
    cancer: str | None,
    chemistry: str | None,
    rng: int,
) -> CellGroups:
    """Divide the malignant cells into groups of one sample each.

    Parameters
    ----------
    obs, source
        The cells.
    reference
        The model that will be asked.
    groupby
        Column with clusters or clones; `None` finds clusters by Leiden.
    sample_key
        Column with the sample; `None` takes `groupby` if it has one of the usual names, and the first of the usual names
        without `groupby`; else all cells are one sample.
    malignant_key
        Column that says which cells are malignant; without it all cells count.
    cancer
        What the tumor is; `None` reads it from a column of the usual names.
    chemistry
        Platform; `None` reads it from a column of the usual names.
    rng
        Seed of the clustering.

    Raises
    ------
    KeyError
        A column does not exist.
    ValueError
        No cell is malignant, or `cancer` or `chemistry` mean nothing.
    """
    stated = None if cancer is None else check_lineage(cancer)
    warnings: list[str] = []
    platform = _chemistry(obs, reference, chemistry, warnings)
    for argument, key in (("groupby", groupby), ("sample_key", sample_key)):
        if key is not None:
            read_column(obs, key, argument)
    malignant = _malignant(obs, malignant_key)
    if sample_key is None:
        sample_key = find_group(obs) if groupby is None else groupby if groupby in GROUP_CANDIDATES else None
    sample = np.full(len(obs), "all cells") if sample_key is None else as_text(obs[sample_key])
    if groupby is not None:
        cluster = as_text(obs[groupby])
    else:
        cluster = _join_small(find_clusters(source, malignant, rng=rng), sample)
        logger.info("no `groupby`: %d clusters of cells by Leiden", len(np.unique(cluster[malignant])))
    kept = malignant & (cluster != "") & (sample != "")
    names, codes = _names(sample, cluster, kept, alone=sample_key is None or sample_key == groupby)
    samples = [str(sample[np.argmax(codes == i)]) for i in range(len(names))]
    lineages: list[str | None] = [stated] * len(names) if stated else _lineages(obs, codes, len(names))
    treated, words = treated_cells(obs)
    shares = np.array([float(treated[codes == i].mean()) for i in range(len(names))])
    if (shares > MOST).any():
        told = "; ".join(f"{key}: {', '.join(map(repr, values[:2]))}" for key, values in words.items())
        warnings.append(
            f"{int((shares > MOST).sum())} of {len(names)} groups seem to come from under or after treatment ({told}). Such cells "
            "show what the drug did to them (state), not how they would have responded (sensitivity)."
        )
    kinds, reasons = _kinds(source, codes, len(names), lineages, confirmed=malignant_key is not None)
    return CellGroups(names, samples, codes, lineages, shares, kinds, reasons, platform, warnings)


def find_clusters(source: CountSource, rows: np.ndarray, *, rng: int) -> np.ndarray:
    """Clusters of the chosen cells: 50 principal components, neighbors, Leiden (scanpy); `''` for all other cells.

    Of more than 50,000 cells an evenly spread choice is clustered; each other cell joins the cluster of most of its 15 nearest
    neighbors among them.
    """
    import scanpy as sc
    from anndata import AnnData

    from .. import models

    out = np.full(len(rows), "", dtype=object)
    at = np.flatnonzero(rows)
    if len(at) < 2 * MIN_CELLS:
        out[at] = "0"
        return out.astype(str)
    pca: Any = models.load("pca")
    pca = pca.fit(source, rng=rng, mask_obs=rows)
    few = spread_rows(at, np.zeros(len(rows), dtype=np.intp), MOST_CLUSTERED)
    cells = AnnData(pca.transform(source, few))
    with threads_kept():
        sc.pp.neighbors(cells, n_neighbors=min(_NEAREST, len(few) - 1), use_rep="X", random_state=short_seed(rng))
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, random_state=short_seed(rng))
    out[few] = cells.obs["leiden"].astype(str).to_numpy()
    if len(few) < len(at):
        from sklearn.neighbors import KNeighborsClassifier

        logger.info("%d evenly spread cells are clustered; the others join the clusters of their neighbors", len(few))
        nearest = KNeighborsClassifier(_NEAREST, algorithm="brute").fit(cells.X, out[few].astype(str))
        rest = np.setdiff1d(at, few)
        for start in range(0, len(rest), _BLOCK):
            block = rest[start : start + _BLOCK]
            out[block] = nearest.predict(pca.transform(source, block))
    return out.astype(str)


def _join_small(cluster: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Clusters with fewer than ten cells in a sample join its largest one, since nothing could be said of them."""
    out = cluster.copy()
    for name in np.unique(sample):
        own = np.flatnonzero((sample == name) & (cluster != ""))
        values, codes, counts = np.unique(cluster[own], return_inverse=True, return_counts=True)
        if len(values):
            out[own[counts[codes] < MIN_CELLS]] = values[counts.argmax()]
    return out


def _names(sample: np.ndarray, cluster: np.ndarray, kept: np.ndarray, *, alone: bool) -> tuple[list[str], np.ndarray]:
    """Names of the groups and the group of each cell; `alone` leaves the sample out of the name."""
    codes = np.full(len(kept), -1, dtype=np.int64)
    clusters, own = np.unique(cluster[kept], return_inverse=True)
    samples, group = np.zeros(0), np.zeros(len(own), dtype=np.int64)
    if not alone:
        samples, group = np.unique(sample[kept], return_inverse=True)
    pairs, found = np.unique(group * len(clusters) + own, return_inverse=True)
    first, second = np.divmod(pairs, max(len(clusters), 1))
    names = np.array(
        [str(clusters[j]) if alone else f"{samples[i]}{SEPARATOR}{clusters[j]}" for i, j in zip(first, second)]
    )
    order = np.argsort(names, kind="stable")
    codes[kept] = np.argsort(order)[found]
    return names[order].tolist(), codes


def _malignant(obs: pd.DataFrame, key: str | None) -> np.ndarray:
    if key is None:
        return np.ones(len(obs), dtype=bool)
    column = read_column(obs, key, "malignant_key")
    if column.dtype.kind in "biuf":
        numbers = column.fillna(0).to_numpy()
        if not np.isin(numbers, (0, 1)).all():
            msg = (
                f"Column {key!r} (`malignant_key`) must hold true and false, 1 and 0, or words, found {numbers.max()}."
            )
            raise ValueError(msg)
        mask = numbers.astype(bool)
    else:
        mask = np.array([text.strip().lower() not in NORMAL_WORDS for text in as_text(column)])
    if not mask.any():
        msg = f"Column {key!r} (`malignant_key`) calls no cell malignant; found {sorted(set(as_text(column)))[:5]}."
        raise ValueError(msg)
    return mask


def _chemistry(obs: pd.DataFrame, reference: Reference, given: str | None, warnings: list[str]) -> str | None:
    """The platform whose shift the reference knows, from what the user or the metadata say."""
    known = {_plain(name): name for name in reference.shifts}
    if given is not None and _plain(given) in known:
        return known[_plain(given)]
    found = given
    if given is None:
        for key in CHEMISTRY_COLUMNS:
            values = set(as_text(obs[key])) - {""} if key in obs else set()
            if len(values) == 1:
                found = str(values.pop())
                if _plain(found) in known:
                    logger.info("platform %r from .obs[%r]", found, key)
                    return known[_plain(found)]
    knows = ", ".join(map(repr, sorted(reference.shifts))) or "none"
    if found:
        what = f"The platform {found!r} is not one that this reference is calibrated for (it knows: {knows})"
        ways = "To get them"
    else:
        what = "The platform of these cells is not known"
        ways = f"If it is one of {knows}, name it with `chemistry=`. Otherwise"
    name = found or "my_platform"
    load = "reference = sdr.models.Reference.load(); " if reference.name == DEFAULT else ""
    warnings.append(
        f"{what}: drugs are ranked, but no probability and no interval is given. {ways}, sequence at least three known cell lines "
        f"on this platform and measure its shift: {load}shift = sdr.models.platform_shift(lines, 'cell_line', chemistry={name!r}, "
        f"reference=reference), then pass reference=reference.with_shift(shift) and chemistry={name!r}."
    )
    return None


def _plain(text: str) -> str:
    return "".join(c for c in str(text).lower() if c.isalnum())


def _lineages(obs: pd.DataFrame, codes: np.ndarray, n: int) -> list[str | None]:
    """Tissue of each group from the first column of the usual names that tells one for any group."""
    for key in CANCER_COLUMNS:
        if key not in obs:
            continue
        text = as_text(obs[key])
        found = []
        for i in range(n):
            values, counts = np.unique(text[codes == i], return_counts=True)
            found.append(lineage_of(str(values[counts.argmax()])))
        if any(found):
            logger.info("tissue of origin from .obs[%r]", key)
            return found
    return [None] * n


def _kinds(
    source: CountSource, codes: np.ndarray, n: int, lineages: list[str | None], *, confirmed: bool
) -> tuple[list[str], list[str]]:
    """What most cells of each group are, and why that is no tumor, unless the user has said that it is."""
    found = assign_compartments(source)
    kinds, reasons = [], []
    other = {item.name for item in compartments() if item.kind in ("immune", "stromal")}
    names = np.array([*(item.name for item in compartments()), UNASSIGNED])
    for i, lineage in enumerate(lineages):
        values, counts = np.unique(names[found.codes[codes == i]], return_counts=True)
        most, share = str(values[counts.argmax()]), float(counts.max() / counts.sum())
        enough = found.n_markers.sum() >= _LEAST_MARKERS
        kinds.append(f"{most} {share:.0%}" if enough else UNASSIGNED)
        foreign = float(counts[np.isin(values, list(other))].sum() / counts.sum())
        wrong = enough and not confirmed and foreign > MOST and lineage not in BLOOD
        reasons.append(
            f"not tumor cells: {foreign:.0%} show markers of blood or stroma (most often {most}); name the malignant cells "
            "with `malignant_key`"
            if wrong
            else ""
        )
    return kinds, reasons
