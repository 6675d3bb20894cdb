"""The rows of a comparison: features of each, and what is to be said against them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .._core.log import logger, warn
from .._data.obs import read_column, read_groups
from .._design.given_away import fitted_elsewhere, knows_labels
from .._design.told import check_told
from .._embed.coverage import check_coverage
from .._embed.slots import embedding_info, embeddings, read_rep
from .._response.choose import model_features, random_features, slot_features
from .._response.features import FixedFeatures
from .._response.recipe import Recipe
from .._stats.folds import LeakError
from .leakage import label_derived, sets_cross_folds
from .naive import NAIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from anndata import AnnData

    from .._response.choose import Matrices
    from .._response.features import Features
    from .._stats.folds import Fold
    from .calls import Calls
    from .cohort import Cohort
    from .external import External
    from .request import Request


@dataclass(frozen=True)
class Candidate:
    """One row of the comparison.

    Parameters
    ----------
    features
        What its head learns from.
    caution
        What is to be said against its score, in words; empty if nothing is.
    kind
        `'model'`, or `'naive'` for a network with random weights.
    knows
        Why it may know the labels of the test cells, in words; lowers the verdict.
    """

    features: Features
    caution: str = ""
    kind: str = "model"
    knows: str = ""

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.features.name


def make_candidates(
    adata: AnnData, obs: pd.DataFrame, cohort: Cohort, matrices: Matrices, request: Request
) -> tuple[list[Candidate], list[str]]:
    """Features of every row, and in words which rows were left out because they leak or cannot be made.

    Without anything named, these are the embeddings that `tl.embed` wrote, else PCA.

    Raises
    ------
    ValueError
        A row is named twice.
    LeakError
        Nothing is left: what was named is known to have seen the test cells or the labels.
    """
    use_rep, recipes, columns = request.slots, request.recipes, request.options.obs_features
    if not use_rep and not recipes and not columns:
        use_rep = [str(note["obsm"]) for note in embeddings(adata)]
        recipes = [] if use_rep else [Recipe("pca")]
        logger.info("evaluating %s", use_rep or "pca")
    names = [*use_rep, *(recipe.name for recipe in recipes)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        msg = f"Each embedding can be evaluated once, found {double} more than once."
        raise ValueError(msg)
    out: list[Candidate] = []
    left_out: list[str] = []
    for key in use_rep:
        try:
            out.append(_slot(adata, obs, cohort, matrices, key, request))
        except LeakError as error:
            if len(names) + bool(columns) == 1:
                raise
            left_out.append(str(error))
            warn(f"{key!r} is left out of the comparison: {error}")
    encoded = [c.name for c in out if getattr(c.features, "description", {}).get("kind") == "encoder"]
    if encoded and request.options.random_weights:
        left_out.append(
            f"no row with random weights beside {', '.join(encoded)}: a slot cannot be embedded again; name the model with "
            "`model=` to see what its architecture scores without pretraining"
        )
    sets = np.zeros(adata.n_obs, dtype=np.int64)
    # Unlabeled cells form a set of their own: what they are is not known.
    sets[cohort.rows] = 1 + np.unique(cohort.units, return_inverse=True)[1]
    for recipe in recipes:
        check_told(obs, recipe.told, label_key=request.label_key, group_key=cohort.keys.get(cohort.plan.level))
        if recipe.tuned:
            out.append(Candidate(_tuned(adata, cohort, matrices, recipe, request)))
            recipe = Recipe(recipe.model, checkpoint=recipe.checkpoint, options=recipe.options)
            if recipe.name in names:
                continue
        out.append(Candidate(model_features(recipe, matrices, sets=sets, rng=request.rng)))
        if request.options.random_weights:
            drawn = random_features(recipe, matrices, sets=sets, rng=request.rng)
            out += [] if drawn is None else [Candidate(drawn, kind="naive")]
    if columns:
        out.append(_columns(obs, cohort, columns, request))
    return out, left_out


def _slot(
    adata: AnnData, obs: pd.DataFrame, cohort: Cohort, matrices: Matrices, key: str, request: Request
) -> Candidate:
    """What `tl.embed` fitted to all cells has seen the test cells; its recipe is fitted again inside every fold."""
    features, info = slot_features(adata, key, matrices, rng=request.rng), embedding_info(adata, key)
    if not info:
        values = read_rep(adata, key)[cohort.rows]
        return Candidate(features, fitted_elsewhere(key), knows=knows_labels(values, cohort.confounding.table))
    if not info.get("set_based"):
        return Candidate(features)
    column = str(info["params"].get("group_key", ""))
    sets = read_groups(obs, column)[1][cohort.rows] if column else np.zeros(len(cohort.y), dtype=int)
    crossing = sets_cross_folds(sets, cohort.folds)
    if crossing and not request.options.allow_leaks:
        msg = (
            f"{key!r} was embedded by a set-based model over sets that stand in training and test (folds "
            f"{crossing[:3]}), so that training cells have seen test cells. Embed again with "
            f"tl.embed(..., group_key={cohort.keys.get(cohort.plan.level, 'sample')!r}), or pass allow_leaks=True."
        )
        raise LeakError(msg)
    return Candidate(features, "set-based: training cells were embedded together with test cells" if crossing else "")


def _tuned(adata: AnnData, cohort: Cohort, matrices: Matrices, recipe: Recipe, request: Request) -> Features:
    """An encoder to be tuned in every fold; samples are the units of the design."""
    from .._response.tune.features import TunedFeatures

    encoder = recipe.load()
    source = encoder.read(adata, matrices.layer)
    check_coverage(source, encoder)
    tokens = encoder.tokenize(source, rows=cohort.rows, rng=request.rng)
    return TunedFeatures(recipe, tokens, cohort.y, cohort.units, kind=request.head, seed=request.rng)


def _columns(obs: pd.DataFrame, cohort: Cohort, names: Sequence[str], request: Request) -> Candidate:
    """Columns of `.obs` as a row of their own, unless they give the label away."""
    parts, found = [], []
    for name in names:
        series = read_column(obs, name, "obs_features").iloc[cohort.rows]
        column = _plain(series)
        reason = "it is the label" if name == request.label_key else label_derived(column, cohort.y)
        reason = reason or (knows_labels(_as_numbers(column), cohort.confounding.table) if _few(column) else "")
        if reason:
            found.append(f"{name!r}: {reason}")
        parts.append(_as_numbers(column))
    if found and not request.options.allow_leaks:
        msg = (
            f"These columns of `.obs` give the label away: {'; '.join(found)}. Leave them out of `obs_features`, or pass "
            "allow_leaks=True to see what they score."
        )
        raise LeakError(msg)
    caution = f"gives the label away ({'; '.join(found)})" if found else ""
    return Candidate(FixedFeatures("obs_features", np.concatenate(parts, axis=1)), caution)


def _few(values: np.ndarray) -> bool:
    """Numbers, or names that are not those of single cells."""
    return values.dtype.kind == "f" or len(np.unique(values)) <= len(values) / 2


def _plain(column: pd.Series) -> np.ndarray:
    """Numbers as they are, anything else as text; missing names are `''`."""
    if column.dtype.kind in "fiub":
        return column.to_numpy(dtype=float)
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(dtype=str)


def _as_numbers(values: np.ndarray) -> np.ndarray:
    """Numbers as they are (missing: the mean), names as one column each."""
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        return np.where(known, values, values[known].mean() if known.any() else 0.0)[:, None]
    return (values[:, None] == np.unique(values)[None, :]).astype(float)


def check_folds(candidates: Iterable[Candidate], folds: Sequence[Fold]) -> None:
    """Refuse folds that an encoder cannot be tuned on, before the first one is.

    Raises
    ------
    ValueError
        A fold has a single sample of a class to learn from.
    """
    for row in candidates:
        if hasattr(row.features, "check"):
            row.features.check(folds)


def check_names(calls: Iterable[Calls], others: Iterable[Candidate | External]) -> None:
    """Refuse rows of calls that have the name of another row.

    Raises
    ------
    ValueError
        Two rows would have one name.
    """
    taken = {row.name for row in others} | {*NAIVE}
    for row in calls:
        if row.name in taken:
            msg = f"A row of `calls` is named {row.name!r}, which another row of the table is called; choose another name."
            raise ValueError(msg)


def weigh_candidates(cohort: Cohort, candidates: Iterable[Candidate | Calls], chosen: str) -> Cohort:
    """The cohort with what is to be said against the rows in its verdict, lowered where a row may know the labels.

    `chosen` says why the genes do, or is empty.
    """
    verdict = cohort.plan.verdict
    verdict = verdict.with_cautions(*(f"{row.name}: {row.caution}." for row in candidates if row.caution))
    for row in candidates:
        if row.knows:
            told = f"{row.name}: {row.knows}, so that it may have been made with the labels of the test cells."
            fix = "Evaluate the model that made the embedding (model=...), which is fitted anew in every fold."
            verdict = verdict.lowered(told, fix)
    if chosen:
        verdict = verdict.lowered(f"{chosen}.", "Start from all genes; they are chosen again in every fold.")
    return replace(cohort, plan=replace(cohort.plan, verdict=verdict))
