"""`models.reference_table`: the references that exist, and which of them are on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arguments import checked
from .._core.settings import settings
from .storage import DEFAULT, META, cached, locate

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

KNOWN: dict[str, dict[str, Any]] = {
    "gdsc2": {"screen": "GDSC2", "licence": "GDSC terms: free for research, no redistribution"},
    "gdsc1": {"screen": "GDSC1", "licence": "GDSC terms: free for research, no redistribution"},
    "ctrp2": {"screen": "CTRPv2", "licence": "NCI CTD2, open access"},
    "prism": {"screen": "PRISM", "licence": "CC BY 4.0 (DepMap)"},
}


@checked
def reference_table() -> pd.DataFrame:
    """List the reference models that come with the package, can be built from a screen, or were built on this machine.

    Returns
    -------
    One row per reference, indexed by the name that :meth:`Reference.load` and
    :func:`~sc_drugresp.models.build_reference` take: `screen`, `release`, `drugs`, `lines`, `genes`, `licence`, `median_r`
    (median over drugs of the correlation with held-out lines), `platforms`, `size_mb` and `installed`. Of a reference that
    is not installed, only the screen and its terms are known.

    Examples
    --------
    >>> import sc_drugresp as sdr
    >>> bool(sdr.models.reference_table().loc["default", "installed"])
    True
    """
    import pandas as pd

    folder = settings.cache_dir / "references"
    own = sorted(path.name for path in folder.iterdir() if (path / META).is_file()) if folder.is_dir() else []
    rows = {DEFAULT: _read(locate(None))}
    for name in [*KNOWN, *(name for name in own if name not in KNOWN)]:
        rows[name] = KNOWN.get(name, {"screen": name}) | _read(cached(name))
    columns = [
        "screen",
        "release",
        "drugs",
        "lines",
        "genes",
        "licence",
        "median_r",
        "platforms",
        "size_mb",
        "installed",
    ]
    frame = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).rename_axis("reference")
    return frame.astype(dict.fromkeys(("drugs", "lines", "genes"), "Int64") | {"installed": bool})


def _read(folder: Path) -> dict[str, Any]:
    """What the files of a reference say of it."""
    if not (folder / META).is_file():
        return {"installed": False}
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    skill = np.array([np.nan if r is None else r for r in meta["drugs"]["columns"]["r"]], dtype=np.float64)
    told = {key: meta["info"][key] for key in ("screen", "release", "licence") if key in meta["info"]}
    return {
        "drugs": len(meta["drugs"]["index"]),
        "lines": len(meta["lines"]["index"]),
        "genes": len(meta["genes"]),
        "median_r": float(np.nanmedian(skill)),
        "platforms": ", ".join(sorted(meta["shifts"])),
        "size_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 2),
        "installed": True,
        **told,
    }
