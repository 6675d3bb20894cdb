"""One vocabulary of tissues for GDSC, CCLE, DepMap, TCGA codes and the words of users."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib.resources import files

_TABLE = files(__package__) / "tables" / "tissues.tsv"
_UNKNOWN = frozenset({"", "na", "nan", "none", "other", "unknown", "unable to classify", "unclassified", "normal"})
# Words that name no tissue: left out before a text is taken for unknown.
_GENERAL = re.compile(
    r"\b(?:adeno)?(?:carcinoma|cancer|tumou?r|neoplasm|malignancy)s?\b|\b(?:cells?|lines?|primary|metasta\w+|invasive|"
    r"advanced|human|patients?|samples?|tissue|malignant|solid|gland|stage|grade|high|low|squamous|ductal|lobular|the|of)\b"
)
_BLOOD = frozenset({"blood", "lymphoid", "myeloid", "plasma cell"})


def _words(text: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", text.lower().replace("'s", "s")))


@cache
def _terms() -> dict[str, str]:
    """Every known term, in plain words, to its lineage."""
    terms: dict[str, str] = {}
    for row in _TABLE.read_text(encoding="utf-8").splitlines():
        if row.startswith("#"):
            continue
        lineage, others = row.split("\t")
        terms.update(dict.fromkeys(map(_words, [lineage, *others.split("|")]), lineage))
    return terms


LINEAGES: tuple[str, ...] = tuple(sorted(set(_terms().values())))
"""The vocabulary: tissues of origin. `'blood'` stands for blood cancers of unstated kind."""


def lineage_of(text: object) -> str | None:
    """Tissue of origin that a text names, or `None` if it names none or more than one.

    Parameters
    ----------
    text
        A TCGA code (`'LUAD'`), a CCLE site (`'large_intestine'`), an Oncotree lineage, a tissue of GDSC, or words
        (`'triple-negative breast cancer'`).

    Returns
    -------
    A member of `LINEAGES`.

    Examples
    --------
    >>> from sc_drugresp.names import lineage_of
    >>> lineage_of("LUAD"), lineage_of("upper_aerodigestive_tract"), lineage_of("metastatic melanoma")
    ('lung', 'head and neck', 'skin')
    """
    if not isinstance(text, str):
        return None
    words = _words(text)
    if words in _UNKNOWN:
        return None
    terms = _terms()
    if words == "all" and text.strip() != "ALL":  # the word, not the leukemia
        return None
    core = " ".join(_GENERAL.sub(" ", words).split())
    for term in (words, core):
        if term in terms and (term == words or term != "all"):
            return terms[term]
    found = {terms[term] for term in _inside(words)}
    if len(found) > 1 and found <= _BLOOD:
        found -= {"blood"}
    return found.pop() if len(found) == 1 else None


def _inside(words: str) -> list[str]:
    """Known terms within a text, the longest first; a term within another one does not count.

    Codes of up to three letters (`OV`, `ALL`) are left out: in running text they are mostly something else.
    """
    found, rest = [], f" {words} "
    for term in sorted(_terms(), key=len, reverse=True):
        if len(term) > 3 and f" {term} " in rest:
            found.append(term)
            rest = rest.replace(f" {term} ", " | ")
    return found


def check_lineage(text: str, *, argument: str = "cancer") -> str:
    """As :func:`lineage_of`, for what a user typed: names that mean no tissue are refused.

    Parameters
    ----------
    text
        Words or a code.
    argument
        Name of the argument, for the message.

    Raises
    ------
    ValueError
        The text names no tissue, or several; the message holds near names.

    Examples
    --------
    >>> from sc_drugresp.names import check_lineage
    >>> check_lineage("lung adenocarcinoma")
    'lung'
    """
    lineage = lineage_of(text)
    if lineage is None:
        near = difflib.get_close_matches(_words(str(text)), _terms(), n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else ""
        msg = f"`{argument}` must name one tissue or cancer type, found {text!r}.{hint} Tissues: {', '.join(LINEAGES)}."
        raise ValueError(msg)
    return lineage


def lineages_agree(one: str | None, other: str | None) -> bool:
    """Whether two lineages can be the same tissue; `'blood'` agrees with every kind of blood cancer.

    Examples
    --------
    >>> from sc_drugresp.names import lineages_agree
    >>> lineages_agree("lung", "lung"), lineages_agree("blood", "myeloid"), lineages_agree("lymphoid", "myeloid")
    (True, True, False)
    """
    if one is None or other is None:
        return False
    return one == other or ("blood" in {one, other} and {one, other} <= _BLOOD)
