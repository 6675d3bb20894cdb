"""Seeded counts with a known response program, for tests, examples and the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import ENSEMBL_ID, RESISTANT, RESPONSE, RESPONSE_CLASSES, SENSITIVE
from .._core.kinds import Range
from ._toy_genes import NORMAL, TREATMENT, TUMOR, Organism, base_expression, program_loading, toy_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from .._core.kinds import ShareOrNone
    from .._core.rng import Rng

NoiseLabels = Literal["sample", "cell"]
Samples = Annotated[int, Range(least=2, most=100_000)]
Cells = Annotated[int, Range(least=1, most=1_000_000)]
Effect = Annotated[float, Range(least=-10, most=10)]
"""In log means: beyond it, counts are zero or overflow."""
COUNTS_PER_GENE, MAX_DEPTH = 3.0, 8_000.0
MALIGNANT_SHARE = 0.7
N_HIDDEN, HIDDEN_SHARE, OWN_SHARE = 2, 0.05, 0.1


@doc_params()
@checked
def toy(
    n_samples: Samples = 8,
    cells_per_sample: Cells = 60,
    n_genes: int = 600,
    *,
    signal: Effect = 1.0,
    sample_effect: Effect = 0.5,
    batch_effect: Effect = 0.3,
    aliased: bool = False,
    noise_labels: NoiseLabels | None = None,
    unlabeled: ShareOrNone = 0.0,
    timepoints: bool = False,
    organism: Organism = "human",
    rng: Rng = 0,
) -> AnnData:
    """Draw negative-binomial counts of tumor samples whose response program is known.

    Half of the samples are sensitive. Malignant cells (70 %) of a sensitive sample express the genes of the program
    more (`UP`) or less (`DOWN`) than those of a resistant one; normal cells carry the label of their sample and no
    signal. Samples and batches also differ in ways that have nothing to do with the response: that is what a classifier
    learns under a random split of cells.

    Parameters
    ----------
    n_samples
        Samples, at least 2.
    cells_per_sample
        Cells of each sample.
    n_genes
        Genes, at least 40. Real symbols with their Ensembl ids.
    signal
        Difference between sensitive and resistant malignant cells in the log mean of a program gene.
    sample_effect
        Standard deviation between samples of the log mean of a gene in one of two hidden programs that have nothing
        to do with the response (a twentieth of the genes each); all genes differ by a tenth of it besides.
    batch_effect
        The same between the two batches.
    aliased
        Process all sensitive samples in one batch and all resistant ones in the other, so that response and batch
        cannot be told apart.
    noise_labels
        `'sample'` or `'cell'`: switch the signal off and draw labels at random per sample or per cell.
    unlabeled
        Share of the samples without a label. Both classes keep at least one labeled sample.
    timepoints
        Take the samples as pairs from one patient, before and after treatment (`timepoint` is `'pre'` or `'post'`),
        with a treatment program in the malignant cells after it. `n_samples` must be a multiple of 4.
    organism
        `'human'` or `'mouse'`: which symbols and ids the genes get.
    {rng}

    Returns
    -------
    :class:`~anndata.AnnData` with `n_samples * cells_per_sample` cells:

    `.X` : :class:`scipy.sparse.csr_matrix` (dtype `float32`)
        Raw counts.
    `.obs` : `sample`, `patient`, `batch`, `drug`, `response`, `cell_type`, `timepoint` (dtype `category`)
        `response` is `sensitive`, `resistant` or missing.
    `.var['ensembl_id']` : :class:`str`
        `var_names` are symbols.
    `.uns['toy']` : :class:`dict`
        The truth: `params`, `program` (gene, loading on the log mean between resistant and sensitive) and `samples`
        (true class, label, mean program activity of the malignant cells).

    Raises
    ------
    ValueError
        A number is out of its range or a choice is unknown.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=4, cells_per_sample=10, n_genes=100)
    >>> adata.shape
    (40, 100)
    >>> sorted(adata.obs["response"].unique())
    ['resistant', 'sensitive']
    """
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    symbols, ids = toy_genes(organism)
    if not 40 <= n_genes <= len(symbols):
        msg = f"n_genes must lie between 40 and {len(symbols)} (the genes with a known id), found {n_genes}."
        raise ValueError(msg)
    if timepoints and n_samples % 4:
        msg = f"timepoints=True needs pairs of both classes: n_samples must be a multiple of 4, found {n_samples}."
        raise ValueError(msg)
    symbols, ids = symbols[:n_genes], ids[:n_genes]
    # Independent streams: switching one effect on or off leaves the draws of the others as they were.
    base_rng, class_rng, sample_rng, batch_rng, label_rng, *cell_rngs = np.random.default_rng(rng).spawn(5 + n_samples)

    upper = np.char.upper(symbols)
    loading = program_loading(upper, n_genes, base_rng)
    log_base = base_expression(upper, n_genes, base_rng)
    dispersion = base_rng.gamma(4.0, 1.0, n_genes)
    types = np.isin(upper, TUMOR).astype(float) - np.isin(upper, NORMAL)
    treatment = np.isin(upper, TREATMENT).astype(float)

    design = _design(n_samples, aliased=aliased, timepoints=timepoints, rng=class_rng)
    sensitive, batch, post = design["sensitive"], design["batch"], design["post"]
    strength = 0.0 if noise_labels is not None else float(signal)
    log_base = log_base + sample_effect * _shifts(n_samples, n_genes, sample_rng)
    log_base += batch_effect * _shifts(2, n_genes, batch_rng)[batch]
    malignant = np.arange(cells_per_sample) < round(MALIGNANT_SHARE * cells_per_sample)
    blocks, activities = [], []
    for i, cell_rng in enumerate(cell_rngs):
        # Cells of one sample differ: half a signal up or down on average, spread over the cells.
        activity = strength * (sensitive[i] - 0.5 + 0.3 * cell_rng.standard_normal(cells_per_sample)) * malignant
        log_mean = log_base[i] + np.outer(activity, loading)
        log_mean += np.outer(np.where(malignant, 1.0, -1.0), types) + np.outer(malignant & post[i], treatment)
        blocks.append(_counts(log_mean, dispersion, cell_rng))
        activities.append(float(activity[malignant].mean()) if malignant.any() else 0.0)

    label = np.where(sensitive, SENSITIVE, RESISTANT).astype(object)
    label[_without_label(sensitive, unlabeled, label_rng)] = None
    cell_label = np.repeat(label, cells_per_sample)
    if noise_labels == "cell":
        random = np.where(label_rng.random(cell_label.size) < 0.5, SENSITIVE, RESISTANT).astype(object)
        random[pd.isna(cell_label)] = None
        cell_label = random
    samples = [f"S{i + 1:02d}" for i in range(n_samples)]
    obs = pd.DataFrame(
        {
            "sample": np.repeat(samples, cells_per_sample),
            "patient": np.repeat(design["patient"], cells_per_sample),
            "batch": np.repeat(np.array(["B1", "B2"])[batch], cells_per_sample),
            "drug": "erlotinib",
            RESPONSE: pd.Categorical(cell_label, categories=list(RESPONSE_CLASSES)),
            "cell_type": np.tile(np.where(malignant, "malignant", "normal"), n_samples),
            "timepoint": np.repeat(np.where(post, "post", "pre"), cells_per_sample),
        },
        index=[f"{sample}_{j:04d}" for sample in samples for j in range(cells_per_sample)],
    ).astype("category")
    adata = AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=pd.DataFrame({ENSEMBL_ID: ids}, index=symbols))
    used = loading != 0
    true_class = np.where(sensitive, SENSITIVE, RESISTANT)
    truth = {"true_class": true_class, "labeled": ~pd.isna(label), "activity": activities}
    adata.uns["toy"] = {
        "params": {
            "signal": float(signal),
            "sample_effect": float(sample_effect),
            "batch_effect": float(batch_effect),
            "aliased": aliased,
            "noise_labels": noise_labels or "none",
            "unlabeled": float(unlabeled),
            "timepoints": timepoints,
            "organism": organism,
        },
        "program": pd.DataFrame({"loading": loading[used]}, index=symbols[used]),
        "samples": pd.DataFrame(truth, index=samples),
    }
    return adata


def _counts(log_mean: np.ndarray, dispersion: np.ndarray, rng: np.random.Generator) -> csr_matrix:
    """Negative-binomial counts of cells that differ in depth."""
    from scipy.sparse import csr_matrix

    n_cells, n_genes = log_mean.shape
    share = np.exp(log_mean)
    depth = min(COUNTS_PER_GENE * n_genes, MAX_DEPTH) * np.exp(0.35 * rng.standard_normal(n_cells))
    mean = share / share.sum(axis=1, keepdims=True) * depth[:, None]
    return csr_matrix(rng.poisson(rng.gamma(dispersion, mean / dispersion)).astype(np.float32))


def _design(n_samples: int, *, aliased: bool, timepoints: bool, rng: np.random.Generator) -> dict[str, Any]:
    """Class, batch, time point and patient of every sample; classes are balanced and in random order."""
    per_patient = 2 if timepoints else 1
    n_patients = n_samples // per_patient
    sensitive = rng.permutation(np.arange(n_patients) < n_patients // 2)
    rank = np.zeros(n_patients, dtype=int)
    for value in (False, True):
        rank[sensitive == value] = np.arange((sensitive == value).sum())
    batch = sensitive.astype(int) if aliased else rank % 2
    patient = np.array([f"P{i + 1:02d}" for i in range(n_patients)])
    return {
        "sensitive": np.repeat(sensitive, per_patient),
        "batch": np.repeat(batch, per_patient),
        "patient": np.repeat(patient, per_patient),
        "post": np.tile([False, True], n_patients) if timepoints else np.zeros(n_samples, dtype=bool),
    }


def _shifts(n: int, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Shift of every gene in `n` samples or batches: a few hidden programs they share, and a little of their own."""
    programs = rng.standard_normal((N_HIDDEN, n_genes)) * (rng.random((N_HIDDEN, n_genes)) < HIDDEN_SHARE)
    return rng.standard_normal((n, N_HIDDEN)) @ programs + OWN_SHARE * rng.standard_normal((n, n_genes))


def _without_label(sensitive: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Indices of the samples that lose their label, in turn from both classes, never the last one of a class."""
    candidates = [rng.permutation(np.flatnonzero(sensitive == value))[1:] for value in (True, False)]
    order = [pool[i] for i in range(len(sensitive)) for pool in candidates if i < len(pool)]
    return np.array(order[: round(share * len(sensitive))], dtype=int)
