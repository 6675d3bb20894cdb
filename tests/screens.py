"""A drug screen whose truth is known: lines of three tissues, drugs that a program of genes sets, one that nothing sets."""

from __future__ import annotations

from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from sc_drugresp._data.counts import read_counts
from sc_drugresp._reference.build import build_reference
from sc_drugresp._reference.platform import platform_shift
from sc_drugresp._reference.pseudobulk import Pseudobulk, pseudobulk
from sc_drugresp._reference.reference import Reference
from sc_drugresp.datasets._toy_genes import toy_genes

N_LINES, N_GENES = 150, 120
TISSUES = ("breast", "lung", "haematopoietic_and_lymphoid_tissue")


def toy_screen(n_lines: int = N_LINES) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Expression (log2), response and tissue of lines."""
    rng = np.random.default_rng(0)
    level = rng.normal(6, 1.5, N_GENES)
    tissue = np.array([TISSUES[i % 3] for i in range(n_lines)])
    marks = {name: rng.normal(0, 1.0, N_GENES) * (rng.random(N_GENES) < 0.4) for name in TISSUES}
    program = rng.normal(0, 1.0, n_lines)
    loading = rng.normal(0, 1.0, N_GENES) * (rng.random(N_GENES) < 0.4)
    values = level + np.array([marks[name] for name in tissue]) + program[:, None] * loading
    values += rng.normal(0, 0.4, values.shape)
    lines = [f"LINE{chr(65 + i // 26)}{chr(65 + i % 26)}" for i in range(n_lines)]
    drugs = {
        "seen": program + rng.normal(0, 0.6, n_lines),
        "unseen": rng.normal(0, 1.0, n_lines),
        "Erlotinib": -program + rng.normal(0, 0.6, n_lines),
        "Osimertinib": program + rng.normal(0, 0.3, n_lines),
    }
    response = pd.concat([pd.DataFrame({"line": lines, "drug": name, "value": y}) for name, y in drugs.items()])
    expression = pd.DataFrame(values, lines, toy_genes("human")[0][:N_GENES])
    return expression, response.sample(frac=0.9, random_state=0), dict(zip(lines, tissue.tolist()))


def cells_of(expression: pd.DataFrame, n_cells: int = 20, *, bias: float = 1.0) -> ad.AnnData:
    """Counts of cells of lines on a platform that changes every gene by a factor of its own."""
    rng = np.random.default_rng(1)
    factor = rng.normal(0, bias, expression.shape[1])
    rates = np.exp2(expression.to_numpy() + factor)
    rates = np.repeat(rates / rates.sum(axis=1, keepdims=True) * 3000, n_cells, axis=0)
    obs = pd.DataFrame({"cell_line": np.repeat(expression.index.to_numpy(), n_cells)})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    counts = csr_matrix(rng.poisson(rates).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=expression.columns))


@cache
def toy_reference() -> tuple[Reference, pd.DataFrame, ad.AnnData]:
    """A reference fitted to 120 lines that knows the platform, and the expression and cells of 30 other lines."""
    expression, response, tissue = toy_screen()
    new = expression.index[120:]
    reference = build_reference("toy", expression=expression, response=response, tissue=tissue, exclude_lines=list(new))
    known = expression.iloc[:12]
    everything = cells_of(pd.concat([known, expression.loc[new]]))
    own = everything[everything.obs["cell_line"].isin(known.index)]
    shift = platform_shift(own, "cell_line", chemistry="dropseq", expression=expression, reference=reference)
    rest = everything[~everything.obs["cell_line"].isin(known.index)].copy()
    return reference.with_shift(shift), expression.loc[new], rest


def bulk_of(reference: Reference, cells: ad.AnnData) -> tuple[Pseudobulk, list[str]]:
    """Cells added up per line, and the lines."""
    lines = cells.obs["cell_line"].unique().tolist()
    codes = np.array([lines.index(line) for line in cells.obs["cell_line"]])
    return pseudobulk(read_counts(cells, expect="any"), reference.genes, codes, len(lines)), lines
