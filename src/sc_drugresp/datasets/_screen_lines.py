"""Which names and identifiers are one cell line: identifiers of DepMap, Sanger and COSMIC first, names last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..names import line_key, lineage_of
from ._screen import LINE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

IDENTIFIERS = ("depmap_id", "sanger_id", "cosmic_id")
PATIENTS = ("depmap_patient", "sanger_patient")
TEXTS = ("name", "disease", *PATIENTS)
_GENERAL_BLOOD = ("blood", "lymphoid")


def tissue_of(texts: Sequence[object]) -> str | None:
    """Lineage that the first telling text names; a later one may say which kind of blood cancer it is."""
    found = [lineage for lineage in map(lineage_of, texts) if lineage is not None]
    if not found or found[0] not in _GENERAL_BLOOD:
        return found[0] if found else None
    kinds = [lineage for lineage in found if lineage in {"lymphoid", "myeloid", "plasma cell"}]
    finer = [lineage for lineage in kinds if lineage not in _GENERAL_BLOOD]
    return [*finer, *kinds, found[0]][0]


def plain_id(value: object) -> str:
    """Text of an identifier: `905938.0` is `'905938'`, a missing one is `''`."""
    text = "" if value is None or value != value else str(value).strip()
    return "" if text.lower() in {"nan", "none", "na"} else text.removesuffix(".0")


class LineBook:
    """Cell lines, collected from several files.

    :meth:`add` takes one row per line of a file: columns among `name`, `depmap_id`, `sanger_id`, `cosmic_id`,
    `depmap_patient`, `sanger_patient`, `disease` and `tissue_texts` (a list of texts). Rows that share an identifier are
    one line. Names decide only where no identifier of the same kind contradicts.
    """

    def __init__(self) -> None:
        self._records: list[dict[str, str]] = []
        self._tissues: list[list[object]] = []
        self._by_id: dict[str, dict[str, int]] = {kind: {} for kind in IDENTIFIERS}
        self._by_key: dict[str, list[int]] = {}

    def add(self, ids: pd.DataFrame) -> list[int]:
        """Enter the lines of a file; return the number of the line for each row."""
        return [self._enter(row) for row in ids.to_dict("records")]

    def _enter(self, row: Mapping[Hashable, object]) -> int:
        clean = {kind: plain_id(row.get(kind)) for kind in (*IDENTIFIERS, *TEXTS)}
        number = self._find(clean)
        if number is None:
            number = len(self._records)
            self._records.append(dict.fromkeys(clean, ""))
            self._tissues.append([])
        record = self._records[number]
        for kind, value in clean.items():
            record[kind] = record[kind] or value
        for kind in IDENTIFIERS:
            if clean[kind]:
                self._by_id[kind].setdefault(clean[kind], number)
        if (key := line_key(clean["name"])) and number not in self._by_key.setdefault(key, []):
            self._by_key[key].append(number)
        texts = row.get("tissue_texts")
        self._tissues[number] += texts if isinstance(texts, list) else []
        return number

    def _find(self, clean: dict[str, str]) -> int | None:
        for kind in IDENTIFIERS:
            if clean[kind] and clean[kind] in self._by_id[kind]:
                return self._by_id[kind][clean[kind]]
        for number in self._by_key.get(line_key(clean["name"]), []):
            record = self._records[number]
            if not any(clean[kind] and record[kind] and clean[kind] != record[kind] for kind in IDENTIFIERS):
                return number
        return None

    def keys(self) -> list[str]:
        """Key of every line: that of its name; a second line of that name gets its identifier as well."""
        keys: list[str] = []
        taken: set[str] = set()
        for record in self._records:
            identifier = next((record[kind] for kind in IDENTIFIERS if record[kind]), "")
            key = line_key(record["name"]) or line_key(identifier)
            if key in taken:
                key = f"{key}_{identifier or len(keys)}"
            taken.add(key)
            keys.append(key)
        return keys

    def table(self) -> pd.DataFrame:
        """`Screen.lines`: one row per line in the order of entry. Patients are those of the provider that knows most."""
        import pandas as pd

        patients = max(PATIENTS, key=lambda kind: sum(bool(record[kind]) for record in self._records))
        rows = [
            {**record, "patient_id": record[patients], "tissue": tissue_of(texts)}
            for record, texts in zip(self._records, self._tissues)
        ]
        index = pd.Index(self.keys(), name="line", dtype=object)
        return pd.DataFrame(rows, index=index, columns=list(LINE_COLUMNS), dtype=object)
