"""The drug of a screen that a user means: generic names, brands, research codes, salts."""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

_TABLE = files(__package__) / "tables" / "drugs.tsv"
_SEPARATOR = "|"
_GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta"})
_SALTS = re.compile(
    r"(?:mono|di|tri|hemi|\d)?(?:hcl|hydrochloride|hydrobromide|bromide|chloride|mesylate|methanesulfonate|"
    r"mesilate|maleate|tosylate|tosilate|besylate|camsylate|esylate|isethionate|sulfate|sulphate|bisulfate|citrate|"
    r"phosphate|fumarate|malate|tartrate|bitartrate|succinate|acetate|lactate|oxalate|adipate|ascorbate|aspartate|"
    r"sodium|potassium|calcium|disodium|trifluoroacetate|tfa|hydrate|anhydrous|olamine|meglumine|salt|mepesuccinate)"
)


_COMBINED = re.compile(r"\bmol/mol\b|\w:[a-z]|\s\+\s", re.IGNORECASE)
"""CTRPv2 writes `a:b (1:1 mol/mol)`, others `a + b`."""


def _tokens(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name.lower().translate(_GREEK)).encode("ascii", "ignore").decode()
    return re.findall("[a-z0-9]+", plain)


def drug_key(name: str, *, salt: bool = True) -> str:
    """Letters and digits of a drug name in lower case, to compare spellings.

    Parameters
    ----------
    name
        Name of a drug.
    salt
        Whether salts and water at the end of the name count: without them, `'Erlotinib HCl'` becomes `'erlotinib'`.

    Examples
    --------
    >>> from sc_drugresp.names import drug_key
    >>> drug_key("PLX-4720"), drug_key("dabrafenib mesylate", salt=False)
    ('plx4720', 'dabrafenib')
    """
    tokens = _tokens(name)
    while not salt and len(tokens) > 1 and _SALTS.fullmatch(tokens[-1]):
        tokens.pop()
    return "".join(tokens)


def is_combination(name: str) -> bool:
    """Whether a name of a screen stands for several drugs given together.

    Examples
    --------
    >>> from sc_drugresp.names import is_combination
    >>> is_combination("navitoclax:PLX-4032 (1:1 mol/mol)"), is_combination("nutlin-3a (-)")
    (True, False)
    """
    return bool(_COMBINED.search(name))


@cache
def _table() -> dict[str, tuple[str, ...]]:
    """Generic name to its other names."""
    rows = (row.split("\t") for row in _TABLE.read_text(encoding="utf-8").splitlines() if not row.startswith("#"))
    return {name: tuple(others.split(_SEPARATOR)) for name, others in rows}


@cache
def _generic_of_key() -> dict[str, str]:
    """Key of any name in the table of the package to its generic name."""
    return {drug_key(name): generic for generic, others in _table().items() for name in (generic, *others)}


def _generic(name: str) -> str | None:
    known = _generic_of_key()
    return known.get(drug_key(name)) or known.get(drug_key(name, salt=False))


def known_names(name: str) -> tuple[str, ...]:
    """Generic name, brands and research codes of a drug, from the table of the package.

    Parameters
    ----------
    name
        Any of them, in any spelling.

    Returns
    -------
    The generic name first; empty if the table does not list the drug.

    Examples
    --------
    >>> from sc_drugresp.names import known_names
    >>> known_names("gleevec")[:3]
    ('imatinib', 'Gleevec', 'Glivec')
    """
    generic = _generic(name)
    return () if generic is None else (generic, *_table()[generic])


def match_drug(name: str, drugs: pd.DataFrame) -> str:
    """Find the drug of a screen that a name means.

    Compared without case, punctuation and salts, first with the names in the screen, then with the synonyms that the
    screen lists, then through the generic names, brands and research codes in the table of the package. Names that are
    merely similar are suggested, never taken.

    Parameters
    ----------
    name
        Generic name, brand or code: `'erlotinib'`, `'Tarceva'`, `'CP-358774'`, `'Erlotinib HCl'`.
    drugs
        Index: names in the screen. Column `synonyms`, if there is one: further names, separated by `'|'`.

    Returns
    -------
    The name in the index.

    Raises
    ------
    ValueError
        No drug has this name, or several have; the message holds near names.

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_drugresp.names import match_drug
    >>> drugs = pd.DataFrame(index=["Erlotinib", "PLX-4720"])
    >>> match_drug("tarceva", drugs), match_drug("plx4720", drugs)
    ('Erlotinib', 'PLX-4720')
    """
    if not isinstance(name, str) or not drug_key(name):
        msg = f"A drug must be named by text, found {name!r}."
        raise ValueError(msg)
    index = [str(drug) for drug in drugs.index]
    if name in index:
        return name
    synonyms = {drug: _split(text) for drug, text in zip(index, drugs["synonyms"])} if "synonyms" in drugs else {}
    for found in _levels(name, index, synonyms):
        if len(found) == 1:
            return found[0]
        if found:
            msg = f"{name!r} means several drugs: {', '.join(map(repr, found))}. Name one of them."
            raise ValueError(msg)
    raise ValueError(_unknown(name, index, synonyms))


def _levels(name: str, index: list[str], synonyms: dict[str, list[str]]) -> Iterable[list[str]]:
    """Drugs that fit, by falling certainty."""
    for salt in (True, False):
        wanted = drug_key(name, salt=salt)
        yield [drug for drug in index if drug_key(drug, salt=salt) == wanted]
    for salt in (True, False):
        wanted = drug_key(name, salt=salt)
        yield [drug for drug in index if wanted in {drug_key(other, salt=salt) for other in synonyms.get(drug, ())}]
    if (generic := _generic(name)) is not None:
        yield [drug for drug in index if drug_key(drug, salt=False) == drug_key(generic, salt=False)]
        yield [drug for drug in index if _generic(drug) == generic]
        yield [drug for drug in index if generic in {_generic(other) for other in synonyms.get(drug, ())}]


def _split(text: object) -> list[str]:
    return [part.strip() for part in text.split(_SEPARATOR) if part.strip()] if isinstance(text, str) else []


def _unknown(name: str, index: list[str], synonyms: dict[str, list[str]]) -> str:
    drug_of = {drug_key(other): drug for drug in index for other in (*known_names(drug), *synonyms.get(drug, ()))}
    drug_of |= {drug_key(drug): drug for drug in index}
    near = difflib.get_close_matches(drug_key(name), drug_of, n=5, cutoff=0.7)
    drugs = list(dict.fromkeys(drug_of[key] for key in near))[:3]
    generic = _generic(name)
    hint = f" Did you mean {' or '.join(map(repr, drugs))}?" if drugs else ""
    if generic is None:
        return f"No drug {name!r} among the {len(index):,} drugs of this screen.{hint}"
    also = f" (a name of {generic})" if drug_key(generic) != drug_key(name) else ""
    why = (
        "Antibodies do little to cell lines in a dish, so that screens hold none."
        if any(drug_key(word).endswith("mab") for word in generic.split())
        else "Another reference may hold it, see models.reference_table()."
    )
    beside = f" Drugs with similar names are other drugs: {', '.join(map(repr, drugs))}." if drugs else ""
    return f"{name!r}{also} was not measured in this screen of {len(index):,} drugs. {why}{beside}"
