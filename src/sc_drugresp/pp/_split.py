"""Training, validation and test cells that share no sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import RESISTANT, RESPONSE, SENSITIVE, SPLIT
from .._core.log import logger
from .._data.modalities import Target, observations
from .._data.obs import read_groups, read_labels, require_both_classes

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from .._core.kinds import Share, ShareOrNone, SlotName
    from .._core.rng import Rng


@doc_params()
@checked
def split(
    data: AnnData | MuData,
    *,
    label_key: str = RESPONSE,
    group_key: str | None = None,
    test_size: Share = 0.2,
    val_size: ShareOrNone = 0.2,
    rng: Rng = 0,
    key_added: SlotName = SPLIT,
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Divide the samples into training, validation and test, balanced by class.

    All cells of a sample stay together, and every part holds samples of both classes. Classes are balanced with
    scikit-learn's :class:`~sklearn.model_selection.StratifiedGroupKFold`. A single split gives only a rough estimate; for
    figures to report, use :func:`~sc_drugresp.tl.evaluate`.

    Parameters
    ----------
    {data}
    {label_key}
    {group_key}
    test_size, val_size
        Share of the labeled cells for testing and for model selection; `val_size=0` makes no validation part.
    {rng}
    {key_added}
    {modality}
    {copy}

    Returns
    -------
    `None`, or the changed copy. Writes:

    `.obs['split']` : :class:`~pandas.Categorical`
        `train`, `val` or `test`; missing for samples without any label. Unlabeled cells follow their sample.

    Raises
    ------
    KeyError
        A column does not exist.
    ValueError
        A share is out of range, or there are too few samples of a class to have both classes in every part.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=10, cells_per_sample=5, n_genes=50)
    >>> sdr.pp.split(adata, group_key="sample")
    >>> adata.obs.groupby("split", observed=True)["sample"].nunique().to_dict()
    {'train': 6, 'val': 2, 'test': 2}
    """
    import pandas as pd

    if test_size + val_size >= 1:
        msg = f"`test_size` + `val_size` must leave cells for training, found {test_size} + {val_size}."
        raise ValueError(msg)
    target = Target(data, modality, copy, key_added)
    obs = observations(data, modality=modality)
    y = read_labels(obs, label_key)
    require_both_classes(y, label_key)
    group_key, groups = read_groups(obs, group_key)
    n_parts = 2 + (val_size > 0)
    for value, name in ((1, SENSITIVE), (0, RESISTANT)):
        n = len(np.unique(groups[y == value]))
        if n < n_parts:
            msg = (
                f"{n_parts} parts need at least {n_parts} values of {group_key!r} with {name} cells, found {n}. "
                "A sample must not be in two parts; use fewer parts (val_size=0), or tl.evaluate with leave_group_out."
            )
            raise ValueError(msg)

    generator = np.random.default_rng(rng)
    part_of: dict[str, str] = {}
    rest = np.flatnonzero(y >= 0)
    for part, share, others in (("test", test_size, n_parts - 1), ("val", val_size / (1 - test_size), 1)):
        if share > 0:
            held = _hold_out(y[rest], groups[rest], share, others, generator)
            part_of |= dict.fromkeys(groups[rest][held].tolist(), part)
            rest = rest[~held]
    part_of |= dict.fromkeys(groups[rest].tolist(), "train")

    parts = ["train", "val", "test"] if val_size > 0 else ["train", "test"]
    column = pd.Categorical([part_of.get(group) for group in groups.tolist()], categories=parts)
    numbers = {name: sum(part == name for part in part_of.values()) for name in parts}
    logger.info("writing .obs[%r]: %s of %r", key_added, numbers, group_key)
    return target.write(obs={key_added: column})


def _hold_out(
    y: np.ndarray, groups: np.ndarray, share: float, others: int, generator: np.random.Generator
) -> np.ndarray:
    """Cells to hold out: whole groups of both classes, leaving `others` groups of each class; nearest to `share`."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[y == value])) for value in (0, 1))
    folds = int(np.clip(round(1 / share), 2, max(fewest, 2)))
    best: tuple[float, np.ndarray] | None = None
    for _ in range(20):
        kfold = StratifiedGroupKFold(folds, shuffle=True, random_state=int(generator.integers(2**31)))
        for _, held in kfold.split(y, y, groups):
            mask = np.zeros(len(y), dtype=bool)
            mask[held] = True
            counts = [
                (len(np.unique(groups[mask & (y == v)])), len(np.unique(groups[~mask & (y == v)]))) for v in (0, 1)
            ]
            if any(inside < 1 or outside < others for inside, outside in counts):
                continue
            # The share itself, and the share within each class.
            distance = sum(abs(mask[y == v].mean() - share) for v in (0, 1))
            if best is None or distance < best[0] - 1e-12:
                best = (distance, mask)
    if best is None:
        msg = (
            "No division of the samples has both classes in every part: some samples hold both classes or are very "
            "large. Use fewer parts (val_size=0), or tl.evaluate with leave_group_out."
        )
        raise ValueError(msg)
    return best[1]
