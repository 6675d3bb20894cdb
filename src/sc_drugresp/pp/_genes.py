"""Gene names of any kind to current symbols and Ensembl ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .. import genes as gene_tools
from .._core.arguments import checked
from .._core.docs import doc_params
from .._core.keys import GeneKeys
from .._core.log import logger, warn
from .._data.modalities import Target, as_adata
from ._gene_report import FAIL_BELOW, WARN_BELOW, gene_report, identifiers

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from mudata import MuData

Duplicates = Literal["sum", "error"]


@doc_params()
@checked
def harmonize_genes(
    data: AnnData | MuData,
    *,
    organism: Literal["auto", "human", "mouse"] = "auto",
    target: Literal["human", "mouse"] = "human",
    gene_key: str | None = None,
    duplicates: Duplicates = "sum",
    layer: str | None = None,
    modality: str = "rna",
    copy: bool = False,
) -> AnnData | MuData | None:
    """Write the current symbol and Ensembl id of every gene.

    Each gene is judged on its own, so that symbols, Ensembl ids with and without version, previous symbols and aliases
    may be mixed. A name that fits several genes is left unresolved. No gene is dropped, renamed or moved, and
    `.X` is not touched: when a model reads the data, it adds the counts of columns that are the same gene.

    Symbols and Ensembl ids come from Ensembl tables shipped with the package. Previous symbols and aliases of HGNC and
    orthologs of MGI are looked for in `settings.data_dir` and the cache and otherwise fetched once, unless
    `settings.offline`; without them the synonyms of Ensembl are used alone, and the report says so.

    Parameters
    ----------
    {data}
    organism
        Species to assume for names that do not reveal it.
    target
        Species to translate to, through one-to-one orthologs; the models know human genes.
        In a mixture of species (a xenograft) genes of the other species are set aside, never translated.
    gene_key
        Column of `.var` with a second identifier. `None` uses the first of the usual ones (`ensembl_id`, `gene_ids`,
        `feature_name`, ...). An Ensembl id takes precedence over a symbol.
    duplicates
        `'sum'` allows several columns for one gene; `'error'` refuses them.
    {layer}
    {modality}
    {copy}

    Returns
    -------
    `None`, or the changed copy. Writes:

    `.var['symbol']`, `.var['ensembl_id']` : :class:`str`
        Empty where unknown. If `.var_names` carries the name of one of these columns and differs from it, it keeps its
        values and loses that name: files cannot hold both.
    `.uns['harmonize_genes']` : :class:`dict`
        `status` (number of genes by how they were recognized), `share_of_counts` (in recognized genes of the target
        species; `share_basis` is `'genes'` where the matrix holds no sums), `ambiguous`, `lost` and `duplicated`
        names, `organism`, `target`, `release` and `sources`.

    Raises
    ------
    ValueError
        Less than half of the counts lie in recognized genes, or genes are duplicated although `duplicates='error'`.
    ConnectionError
        Orthologs are needed, no table of them is at hand, and it cannot be fetched.
    KeyError
        `gene_key`, `layer` or `modality` does not exist.

    Warns
    -----
    UserWarning
        Less than 80 % of the counts lie in recognized genes, or species are mixed.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> adata = sdr.datasets.toy(n_samples=2, cells_per_sample=10, n_genes=100)
    >>> adata.var_names = adata.var.pop("ensembl_id") + ".1"
    >>> sdr.pp.harmonize_genes(adata)
    >>> adata.uns["harmonize_genes"]["status"]
    {'ensembl_version': 100}
    """
    slots = Target(data, modality, copy)
    adata = as_adata(data, modality=modality)
    if 0 in adata.shape:
        msg = f"Expected at least one cell and one gene, found an object of shape {adata.shape}."
        raise ValueError(msg)
    names, other = identifiers(adata.var, adata.uns, gene_key)
    found = _resolve(names, other, organism, target)
    report = gene_report(adata, names, found, layer)
    _judge(report, names, found, duplicates)
    report["params"] = {"organism": organism, "duplicates": duplicates, "gene_key": gene_key or ""}
    keys = GeneKeys()
    logger.info(
        "recognized %d of %d genes with %.1f %% of the %s (%s, %s); writing .var[%r], .var[%r], .uns[%r]",
        report["n_matched"], len(found), 100 * report["share_of_counts"], report["share_basis"],
        found.organism, found.release, keys.symbol, keys.ensembl_id, keys.uns,
    )  # fmt: skip
    columns = {keys.symbol: found.symbol.astype(object), keys.ensembl_id: found.ensembl_id.astype(object)}
    return slots.write(var=columns, uns={keys.uns: report})


def _resolve(names: np.ndarray, other: np.ndarray | None, organism: Any, target: Any) -> gene_tools.Resolution:
    """Resolve the names; orthologs are fetched only if all genes are of the other species.

    Raises
    ------
    ConnectionError
        Orthologs are needed and cannot be had.
    """
    choices = {"organism": organism, "target": target, "ids": other}
    aliases = gene_tools.load_aliases(download=("hgnc",))
    found = gene_tools.resolve(names, aliases=aliases, **choices)
    if found.organism not in {"human", "mouse"} or found.organism == found.target:
        return found
    if not aliases.orthologs:
        try:
            gene_tools.fetch_file("orthologs")
        except ConnectionError as error:
            msg = (
                f"These are {found.organism} genes; one-to-one orthologs are needed to translate them to {target}. "
                f"{error}\nTo keep {found.organism} genes, pass target={found.organism!r}."
            )
            raise ConnectionError(msg) from error
    return gene_tools.resolve(names, aliases=gene_tools.load_aliases(), **choices)


def _judge(report: dict[str, Any], names: np.ndarray, found: gene_tools.Resolution, duplicates: Duplicates) -> None:
    share, basis = report["share_of_counts"], report["share_basis"]
    example = ", ".join(map(repr, names[~found.matched][:3].tolist()))
    if share < FAIL_BELOW:
        msg = (
            f"Only {share:.0%} of the {basis} lie in recognized {found.target} genes ({report['n_matched']} of "
            f"{report['n_genes']} genes: {report['status']}; not recognized: {example}). Only human and mouse genes are "
            "known. Check `organism=`, or name the column of `.var` with symbols or Ensembl ids with `gene_key=`."
        )
        raise ValueError(msg)
    if duplicates == "error" and report["n_duplicated"]:
        listed = ", ".join(map(repr, report["duplicated"][:5]))
        msg = (
            f"{report['n_duplicated']} columns are genes that other columns hold too ({listed}, ...). Add them up "
            "yourself, or use duplicates='sum': every model then adds their counts when it reads the data."
        )
        raise ValueError(msg)
    if found.organism == "mixed":
        warn(
            f"Genes of two species: {report['share_other_species']:.0%} of the {basis} lie in genes that are not "
            f"{found.target} and are set aside. In a xenograft, keep the cells of one species only."
        )
    if share < WARN_BELOW:
        warn(
            f"Only {share:.0%} of the {basis} lie in recognized genes; not recognized: {example}. "
            "See .uns['harmonize_genes']."
        )
