"""What `tl.evaluate` reads from the object: design columns, embeddings as features, cautions about both."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from .._core.keys import ROLE_CANDIDATES
from .._core.log import logger
from .._data.counts import CountSource, read_counts
from .._data.obs import read_column, read_groups
from .._embed.slots import embedding_info, embeddings, read_rep
from .._stats.folds import Fold, LeakError, find_leaks, given_folds, leave_group_out
from ..models._registry import find
from .design import CELLS, Plan, choose_split, nested
from .leakage import fitted_elsewhere, label_derived, sets_cross_folds
from .run import Features, FittedFeatures, FixedFeatures
from .tuned import Tuning, tuned_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData


@dataclass(frozen=True)
class Design:
    """The labeled cells: what is known about each, and how they will be split.

    Parameters
    ----------
    rows
        Rows of the labeled cells.
    y
        Their labels, 1 sensitive and 0 resistant.
    columns
        Role to values, for labeled cells.
    keys
        Role to name of the `.obs` column.
    plan
        Strictest valid split, with the verdict.
    folds
        Its folds; empty where no strict score is possible.
    remake
        Makes the folds that other labels would have had.
    leaks
        What a split of the user's lets through, in words.
    """

    rows: np.ndarray
    y: np.ndarray
    columns: dict[str, np.ndarray]
    keys: dict[str, str]
    plan: Plan
    folds: list[Fold]
    remake: Callable[[np.ndarray], list[Fold]]
    leaks: list[str] = field(default_factory=list)

    @property
    def datasets(self) -> np.ndarray:
        """Data set of each labeled cell."""
        return self.columns.get("dataset", np.full(len(self.y), "all"))

    @property
    def units(self) -> np.ndarray:
        """Independent unit of each labeled cell."""
        return self.plan.units

    @property
    def unit_key(self) -> str:
        """Column of `.obs` that names the units; empty where nothing does."""
        for role in ("patient", "sample", "batch", *self.columns):
            if role in self.columns and np.array_equal(self.columns[role], self.units):
                return self.keys[role]
        return ""


def role_columns(
    adata: AnnData, rows: np.ndarray, group_key: str | None, dataset_key: str | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Columns of the design table by role, among labeled cells; what is missing for some of them is left out."""
    columns: dict[str, np.ndarray] = {}
    keys: dict[str, str] = {}
    for role, candidates in ROLE_CANDIDATES.items():
        usable = [key for key in candidates if key in adata.obs and not adata.obs[key].iloc[rows].isna().any()]
        varying = [key for key in usable if adata.obs[key].iloc[rows].nunique() > 1]
        if usable:
            keys[role] = (varying or usable)[0]
    if dataset_key is not None:
        if read_column(adata.obs, dataset_key, "dataset_key").iloc[rows].isna().any():
            msg = f"Column {dataset_key!r} (`dataset_key`) is missing for some labeled cells."
            raise ValueError(msg)
        keys["dataset"] = dataset_key
    if group_key is not None:
        role = next((r for r, names in ROLE_CANDIDATES.items() if group_key in names and r != "dataset"), "sample")
        keys[role if role in ("patient", "sample", "batch") else "sample"] = group_key
    for role, key in keys.items():
        columns[role] = adata.obs[key].iloc[rows].astype(str).to_numpy(dtype=str)
    group = next((role for role, key in keys.items() if key == group_key), None)
    if group is not None:
        for role in ("patient",):
            # A patient column that cuts through the user's groups does not hold them together.
            if role != group and role in columns and not nested(columns[group], columns[role]):
                del columns[role], keys[role]
    return columns, keys


def read_design(
    adata: AnnData,
    y: np.ndarray,
    *,
    group_key: str | None,
    dataset_key: str | None,
    split: str,
    allow_leaks: bool,
    pairs: bool,
    rng: int,
) -> Design:
    """Choose or check the split.

    Raises
    ------
    ValueError
        The split that was asked for is not possible.
    LeakError
        It lets training see samples or patients of the test cells.
    """
    rows = np.flatnonzero(y >= 0)
    labels = y[rows].astype(np.int64)
    if group_key is not None:
        group_key, _ = read_groups(adata.obs.iloc[rows], group_key)
    columns, keys = role_columns(adata, rows, group_key, dataset_key)
    leaks: list[str] = []
    remake: Callable[[np.ndarray], list[Fold]]
    if split == "group":
        group_key, groups = read_groups(adata.obs.iloc[rows], group_key)
        role = next((r for r in ("patient", "sample", "batch") if keys.get(r) == group_key), "sample")
        given = {r: v for r, v in columns.items() if r in ("timepoint", "drug")} | {role: groups}
        plan = choose_split(labels, given, levels=(role,), names=keys | {role: group_key})
        remake = partial(leave_group_out, groups=groups, pairs=pairs, rng=rng)
        folds = remake(labels) if plan.strict else []
        leaks = _leaks(folds, columns, keys, allow_leaks=allow_leaks)
    else:
        plan = choose_split(labels, columns, names=keys)
        if split == "auto":
            remake = partial(leave_group_out, groups=plan.groups, pairs=pairs, rng=rng)
            folds = remake(labels) if plan.strict else []
        else:
            column = read_column(adata.obs, split, "split").iloc[rows]
            given_names = np.where(column.isna(), "", column.astype(str)).astype(str)
            folds = given_folds(given_names)

            def remake(labels: np.ndarray) -> list[Fold]:
                return given_folds(given_names)

            leaks = _leaks(folds, columns, keys, allow_leaks=allow_leaks)
    if plan.level == CELLS and plan.units[0] == "all cells" and keys:
        finest = [columns[role] for role in ("sample", "patient", "batch") if role in columns]
        if finest:
            plan = Plan(plan.level, plan.groups, finest[0], plan.verdict, plan.cautions)
    if plan.strict and split == "auto":
        logger.info("holding out every %s (.obs[%r])", plan.level, keys.get(plan.level, plan.level))
    return Design(rows, labels, columns, keys, plan, folds, remake, leaks)


def _leaks(folds: list[Fold], columns: dict[str, np.ndarray], keys: dict[str, str], *, allow_leaks: bool) -> list[str]:
    checked = {keys[role]: columns[role] for role in ("patient", "sample") if role in columns}
    found = [str(leak) for leak in find_leaks(folds, checked)]
    if found and not allow_leaks:
        msg = (
            f"The given split leaks: {'; '.join(found[:3])}{' ...' if len(found) > 3 else ''}. Put everything of one patient "
            "or sample into one fold, use split='auto', or pass allow_leaks=True to score it anyway (it is recorded)."
        )
        raise LeakError(msg)
    return found


def labeled_source(source: CountSource, rows: np.ndarray) -> CountSource:
    """The labeled cells in memory, as CSR: every fold reads them again."""
    from scipy import sparse

    matrix = sparse.vstack([block for _, block in source.blocks(rows=rows)], format="csr")
    return CountSource(matrix, source.names, source.other, source.origin, source.kind)


def model_features(
    adata: AnnData,
    design: Design,
    *,
    use_rep: Sequence[str],
    model: Sequence[str],
    obs_features: Sequence[str],
    layer: str | None,
    source: CountSource | None,
    label_key: str,
    allow_leaks: bool,
    rng: int,
    tuning: Tuning,
) -> list[tuple[Features, str]]:
    """Features of every row of the table, each with a caution in words (empty if there is none).

    Raises
    ------
    LeakError
        An embedding or column is known to have seen the test cells or the labels.
    """
    if not use_rep and not model and not obs_features:
        use_rep = [str(note["obsm"]) for note in embeddings(adata)]
        model = [] if use_rep else ["pca"]
        logger.info("evaluating %s", use_rep or model)
    out = [
        _slot_features(adata, design, key, layer=layer, source=source, allow_leaks=allow_leaks, rng=rng)
        for key in use_rep
    ]
    for name in model:
        encoder = find(name)[0].kind == "encoder"
        if encoder and tuning.mode != "frozen":
            out.append((tuned_features(adata, design, name, tuning, layer=layer, rng=rng), ""))
        options = tuning.of_encoder if encoder else {}
        checkpoint = tuning.checkpoint if encoder else None
        out.append(
            _embedder_features(
                adata, design, name, layer=layer, source=source, rng=rng, options=options, checkpoint=checkpoint
            )
        )
    if obs_features:
        out.append(_obs_features(adata, design, obs_features, label_key=label_key, allow_leaks=allow_leaks))
    names = [features.name for features, _ in out]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        msg = f"Each embedding can be evaluated once, found {double} more than once."
        raise ValueError(msg)
    return out


def _slot_features(
    adata: AnnData,
    design: Design,
    key: str,
    *,
    layer: str | None,
    source: CountSource | None,
    allow_leaks: bool,
    rng: int,
) -> tuple[Features, str]:
    values, info = read_rep(adata, key)[design.rows], embedding_info(adata, key)
    if not info:
        return FixedFeatures(key, values), fitted_elsewhere(key)
    params = dict(info.get("params", {}))
    if info.get("fitted_on_these_cells"):
        # What was written has seen the test cells; the same recipe is fitted again inside every fold.
        known = {"model", "genes", "rng", "layer", "group_key"}
        options = {name: value for name, value in params.items() if name not in known}
        features, _ = _embedder_features(
            adata, design, str(params["model"]), layer=layer, source=source, rng=rng, name=key, options=options
        )
        return features, ""
    if info.get("set_based"):
        column = str(params.get("group_key", ""))
        sets = adata.obs[column].astype(str).to_numpy()[design.rows] if column else np.zeros(len(design.y), dtype=int)
        crossing = sets_cross_folds(sets, design.folds)
        if crossing and not allow_leaks:
            msg = (
                f"{key!r} was embedded by a set-based model over sets that stand in training and test (folds "
                f"{crossing[:3]}), so that training cells have seen test cells. Embed again with "
                f"tl.embed(..., group_key={design.keys.get(design.plan.level, 'sample')!r}), or pass allow_leaks=True."
            )
            raise LeakError(msg)
        if crossing:
            return FixedFeatures(key, values), "set-based: training cells were embedded together with test cells"
    return FixedFeatures(key, values), ""


def _embedder_features(
    adata: AnnData,
    design: Design,
    model: str,
    *,
    layer: str | None,
    source: CountSource | None,
    rng: int,
    name: str | None = None,
    options: dict[str, Any] | None = None,
    checkpoint: Any = None,
) -> tuple[Features, str]:
    spec, _ = find(model)
    counts = read_counts(adata, layer=layer, expect=spec.expects)
    if spec.kind == "baseline":
        labeled = (
            source if source is not None and source.origin == counts.origin else labeled_source(counts, design.rows)
        )
        return FittedFeatures(name or model, lambda: models.load(model, **(options or {})), labeled, rng=rng), ""
    encoder = models.load(model, checkpoint=checkpoint, **(options or {}))
    groups = np.zeros(adata.n_obs, dtype=np.int64)
    groups[design.rows] = 1 + np.unique(design.units, return_inverse=True)[1]
    # Unlabeled cells form a set of their own: what they are is not known.
    values = encoder.embed(counts, rng=rng, groups=groups if spec.set_based else None)
    return FixedFeatures(name or model, values[design.rows]), ""


def _obs_features(
    adata: AnnData, design: Design, names: Sequence[str], *, label_key: str, allow_leaks: bool
) -> tuple[Features, str]:
    parts, found = [], []
    for name in names:
        column = read_column(adata.obs, name, "obs_features").iloc[design.rows]
        reason = "it is the label" if name == label_key else label_derived(_plain(column), design.y)
        if reason:
            found.append(f"{name!r}: {reason}")
        parts.append(_as_numbers(column))
    if found and not allow_leaks:
        msg = (
            f"These columns of `.obs` give the label away: {'; '.join(found)}. Leave them out of `obs_features`, or pass "
            "allow_leaks=True to see what they score."
        )
        raise LeakError(msg)
    caution = f"gives the label away ({'; '.join(found)})" if found else ""
    return FixedFeatures("obs_features", np.concatenate(parts, axis=1)), caution


def _plain(column: Any) -> np.ndarray:
    if column.dtype.kind in "fiub":
        return column.to_numpy(dtype=float)
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=str)


def _as_numbers(column: Any) -> np.ndarray:
    """Numbers as they are (missing: the mean), names as one column each."""
    values = _plain(column)
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        return np.where(known, values, values[known].mean() if known.any() else 0.0)[:, None]
    return (values[:, None] == np.unique(values)[None, :]).astype(float)


def genes_chosen_before(adata: AnnData) -> str:
    """A caution when the object holds only genes that were chosen on all of its cells."""
    if "highly_variable" in adata.var and bool(adata.var["highly_variable"].all()) and adata.n_vars > 1:
        return (
            "the object holds highly variable genes only, chosen on all cells; start from all genes, they are chosen "
            "again in every fold"
        )
    return ""
