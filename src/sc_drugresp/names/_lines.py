"""One spelling for the name of a cell line."""

from __future__ import annotations

import re

_SITES = (
    "LUNG|BREAST|SKIN|OVARY|PANCREAS|STOMACH|KIDNEY|BONE|ENDOMETRIUM|LIVER|PLEURA|PROSTATE|THYROID|CERVIX|PLACENTA|"
    "OESOPHAGUS|CENTRAL_NERVOUS_SYSTEM|HAEMATOPOIETIC_AND_LYMPHOID_TISSUE|LARGE_INTESTINE|SMALL_INTESTINE|URINARY_TRACT|"
    "UPPER_AERODIGESTIVE_TRACT|SOFT_TISSUE|AUTONOMIC_GANGLIA|BILIARY_TRACT|SALIVARY_GLAND|MATCHED_NORMAL_TISSUE|"
    "ENGINEERED|FIBROBLAST|EYE|TESTIS|ADRENAL_CORTEX|VULVA|TEETH"
)
# Lines of the National Cancer Institute are often named without it: H1975. H4 and H9 are lines of others.
_NCI = re.compile(r"H\d{2,4}[A-Z]?")
_CCLE = re.compile(rf"^[A-Z0-9]+_(?:{_SITES})[A-Z0-9_]*$")

# Two lines of different patients whose names differ in punctuation alone. The keys are those of DepMap.
_PUNCTUATION_MATTERS = {
    "T-T": "TDOTT",  # esophagus; TT is a medullary carcinoma of the thyroid
    "T.T": "TDOTT",
    "TT_OESOPHAGUS": "TDOTT",
    "KMH-2": "KMHDASH2",  # thyroid; KM-H2 is a Hodgkin lymphoma
    "KMH2_THYROID": "KMHDASH2",
}
# One line under two names.
_SAME_LINE = {
    "7860": "786O",
    "EOL1CELL": "EOL1",
    "LU99A": "LU99",
    "NCIH510": "NCIH510A",
    "NIHOVCAR3": "OVCAR3",
    "SR": "SR786",
    "TTTHYROID": "TT",
    "U031": "UO31",
    "U251": "U251MG",
    "U266": "U266B1",
    "WM793B": "WM793",
}


def line_key(name: object) -> str:
    """Key of a cell line: the name in capitals without punctuation, `'NCI-H1975'` becomes `'NCIH1975'`.

    The names of CCLE (`'A549_LUNG'`) lose their tissue, and `'H1975'` is `'NCI-H1975'`. A short list keeps lines apart whose names differ in punctuation
    alone (`'TT'` and `'T-T'`, `'KM-H2'` and `'KMH-2'`) and joins lines that two screens spell differently
    (`'786-0'` and `'786-O'`).

    Parameters
    ----------
    name
        Name as published; anything but text that holds letters or digits gives `''`.

    Examples
    --------
    >>> from sc_drugresp.names import line_key
    >>> line_key("MDA-MB-468"), line_key("SKBR3_BREAST"), line_key("T-T"), line_key("TT")
    ('MDAMB468', 'SKBR3', 'TDOTT', 'TT')
    """
    if not isinstance(name, str):
        return ""
    text = name.strip().upper()
    if text in _PUNCTUATION_MATTERS:
        return _PUNCTUATION_MATTERS[text]
    if _CCLE.match(text):
        text = text.split("_", 1)[0]
    key = re.sub("[^A-Z0-9]", "", text)
    key = f"NCI{key}" if _NCI.fullmatch(key) else key
    return _SAME_LINE.get(key, key)
