"""Files of CTRPv2 at the CTD2 data portal of the NCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._screen_parts import Response, drug_table, line_ids, only

if TYPE_CHECKING:
    from ._screen_files import Tables

_CURVES = ("experiment_id", "master_cpd_id", "area_under_curve")
_EXPERIMENT = ("experiment_id", "master_ccl_id")
_LINE = ("master_ccl_id", "ccl_name")
_COMPOUND = ("master_cpd_id", "cpd_name")
_SITES = ["ccle_primary_site", "ccle_hist_subtype_1", "ccle_primary_hist"]
_ABOUT = ["broad_cpd_id", "gene_symbol_of_protein_target", "target_or_activity_of_compound"]


def ctrp_response(tables: Tables) -> Response | None:
    """Areas under the curve of CTRPv2: `v20.data.curves_post_qc.txt` and the three tables that explain its numbers.

    The area is the sum of viabilities over about 16 concentrations: 0 to about 16 and beyond, a high one means a
    resistant line. A line that was screened in several experiments is averaged later.

    Raises
    ------
    ValueError
        There are curves without the tables that explain them.
    """
    curves = only(tables.like(lambda table: table.has(*_CURVES)), "the curves of CTRPv2")
    if curves is None:
        return None
    explained = {
        "v20.meta.per_experiment.txt": only(tables.like(lambda t: t.has(*_EXPERIMENT)), "the experiments of CTRPv2"),
        "v20.meta.per_cell_line.txt": only(tables.like(lambda t: t.has(*_LINE)), "the cell lines of CTRPv2"),
        "v20.meta.per_compound.txt": only(tables.like(lambda t: t.has(*_COMPOUND)), "the compounds of CTRPv2"),
    }
    experiments, lines, compounds = explained.values()
    if experiments is None or lines is None or compounds is None:
        missing = [name for name, table in explained.items() if table is None]
        msg = f"{curves.name} needs the other tables of its archive; missing: {missing}."
        raise ValueError(msg)
    frame = curves.read(_CURVES)
    line_of = experiments.read(_EXPERIMENT).drop_duplicates("experiment_id").set_index("experiment_id")["master_ccl_id"]
    cells = lines.read([*_LINE, *_SITES]).reindex(columns=[*_LINE, *_SITES]).drop_duplicates("master_ccl_id")
    drugs = (
        compounds.read([*_COMPOUND, *_ABOUT]).reindex(columns=[*_COMPOUND, *_ABOUT]).drop_duplicates("master_cpd_id")
    )
    place = {number: row for row, number in enumerate(cells["master_ccl_id"])}
    name_of = drugs.set_index("master_cpd_id")["cpd_name"].astype(str).str.strip()
    cells["disease"] = cells["ccle_hist_subtype_1"]
    return Response(
        ids=line_ids(cells.reset_index(drop=True), _SITES, name="ccl_name", disease="disease"),
        pairs=frame.assign(
            line=frame["experiment_id"].map(line_of).map(place),
            drug=frame["master_cpd_id"].map(name_of),
            value=frame["area_under_curve"],
        ),
        kind="auc",
        drugs=drug_table(
            drugs["cpd_name"],
            targets=drugs["gene_symbol_of_protein_target"].fillna("").str.replace(";", ", ").to_numpy(),
            pathway=drugs["target_or_activity_of_compound"].to_numpy(),
            synonyms=drugs["broad_cpd_id"].to_numpy(),
        ),
        tables=(curves, experiments, lines, compounds),
    )
