"""Write the lowest version of every dependency that `pyproject.toml` allows: `python scripts/lowest_versions.py FILE`.

`pip-audit` compares them with the published advisories; `--reachable` says whether it could ask for them from here.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PROBE = "https://pypi.org/pypi/requests/2.19.0/json"
"""A version with known flaws: a mirror that lists none would let everything pass."""


def requirements() -> Iterator[str]:
    """Dependencies and extras; what only developers install is not shipped."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield from project["dependencies"]
    for wanted in project["optional-dependencies"].values():
        yield from wanted


def lowest() -> dict[str, str]:
    """Name and lowest version, with three numbers; a dependency without a bound is an error."""
    found = {}
    for text in requirements():
        name, _, version = re.sub(r"\[.*?\]|,.*", "", text).partition(">=")
        if name in {"sc-drugresp", "anndata"} and not version:
            continue  # its own extras; extras of what has a bound elsewhere
        if not re.fullmatch(r"[\d.]+", version):
            msg = f"{text!r} states no lowest version."
            raise ValueError(msg)
        found[name] = ".".join((*version.split("."), "0", "0")[:3]) if version.count(".") < 2 else version
    return found


def reachable() -> bool:
    """Whether the service answers and knows advisories."""
    import requests

    try:
        answer = requests.get(PROBE, timeout=10)
        return bool(answer.json()["vulnerabilities"])
    except (requests.RequestException, ValueError, KeyError):
        return False


if __name__ == "__main__":
    if sys.argv[1] == "--reachable":
        print("yes" if reachable() else "no")
    else:
        lines = [f"{name}=={version}\n" for name, version in lowest().items()]
        Path(sys.argv[1]).write_text("".join(lines), encoding="utf-8")
