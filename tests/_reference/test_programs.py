"""Gene programs of treated cells: seen where they are planted, not in untreated lines."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_drugresp as sdr
from sc_drugresp._data.counts import read_counts
from sc_drugresp._reference.programs import program_limits, programs, visible_programs
from sc_drugresp._reference.pseudobulk import pseudobulk
from sc_drugresp._reference.rank import answer_groups
from sc_drugresp.names import line_key

GENES = [*dict.fromkeys(gene for program in programs() for gene in program.genes), *(f"G{i}" for i in range(200))]
ALL = np.ones(len(GENES), dtype=bool)


@pytest.fixture
def lines() -> np.ndarray:
    """Untreated lines: programs vary together, as they do in real ones."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(400, len(GENES)))
    for program in programs():
        Z[:, [GENES.index(gene) for gene in program.genes]] += rng.normal(size=(400, 1))
    return Z


def treated(Z: np.ndarray, *names: str) -> np.ndarray:
    out = Z.copy()
    for program in programs():
        if program.name in names:
            out[:, [GENES.index(gene) for gene in program.genes]] += 4 * program.sign
    return out


def test_few_untreated_lines_show_a_program(lines) -> None:
    limits = program_limits(lines, GENES)
    assert set(limits) == {program.name for program in programs()}
    assert np.mean([text != "" for text in visible_programs(lines, GENES, ALL, limits)]) < 0.02


@pytest.mark.parametrize("up_or_down", ["MAPK output", "p53 targets"])
def test_planted_programs_are_seen_only_together_with_the_cell_cycle(lines, up_or_down) -> None:
    limits = program_limits(lines, GENES)
    both = visible_programs(treated(lines[:50], up_or_down, "cell cycle"), GENES, ALL, limits)
    assert all(up_or_down in text and "cell cycle lower than in 95% of untreated lines" in text for text in both)
    for half in (up_or_down, "cell cycle"):
        seen = visible_programs(treated(lines[:50], half), GENES, ALL, limits)
        assert np.mean([text != "" for text in seen]) < 0.2


def test_too_few_genes_say_nothing(lines) -> None:
    limits = program_limits(lines, GENES)
    cells = treated(lines[:5], "MAPK output", "cell cycle")
    seen = visible_programs(cells, GENES, np.arange(len(GENES)) >= 5, limits)  # five genes of MAPK output are left
    assert not any("MAPK" in text for text in seen)
    assert program_limits(lines[:, -200:], GENES[-200:]) == {}


def test_a_visible_program_warns(monkeypatch) -> None:
    from screens import toy_reference

    reference, _, cells = toy_reference()
    told = {"groupby": "cell_line", "chemistry": "dropseq"}
    words = "MAPK output lower"
    monkeypatch.setattr("sc_drugresp._reference.rank.visible_programs", lambda Z, *_: [words] + [""] * (len(Z) - 1))
    adata = cells[:200].copy()
    with pytest.warns(UserWarning, match=r"1 of \d+ groups show a gene program of treated cells \(MAPK output lower\)"):
        sdr.tl.rank_drugs(adata, reference=reference, **told)
    assert adata.uns["drug_ranking"]["groups"]["treatment_programs"].tolist()[0] == words


def test_untreated_lines_are_not_called_treated(shared) -> None:
    array = pd.read_parquet(shared / "data/bulk2/gdsc_expression_rowz_x100_6163genes.parquet").astype(np.float32) / 100
    response = pd.read_parquet(shared / "data/bulk2/gdsc12_response.parquet").rename(columns={"auc": "value"})
    response = response[(response["screen"] == "GDSC2") & response["drug"].astype(str).isin(["Erlotinib", "Afatinib"])]
    reference = sdr.models.build_reference("own", expression=array, response=response)
    assert set(reference.programs) == {program.name for program in programs()}
    breast = ad.read_h5ad(shared / "data" / "GSE173634_breast21_lines_dropseq.h5ad")
    shift = sdr.models.platform_shift(breast, "cell_line", chemistry="dropseq", expression=array, reference=reference)
    reference = reference.with_shift(shift)
    for file in ("GSE173634_breast21_lines_dropseq", "GSE118767_lung5_afatinib_celseq2"):
        cells = ad.read_h5ad(shared / "data" / f"{file}.h5ad")
        codes, groups = pd.factorize(cells.obs["cell_line"].astype(str).map(line_key))
        bulk = pseudobulk(read_counts(cells), reference.genes, codes, len(groups))
        answers = answer_groups(reference, bulk, list(groups), chemistry="dropseq")
        assert answers.programs == [""] * len(groups)
