"""Build the packaged gene tables from the Ensembl gene caches inside the npm package `ideogram` (CC0).

Run it from the repository root; it needs `npm`::

    python scripts/build_gene_tables.py

It writes `src/sc_drugresp/genes/tables/`: per organism one table (Ensembl number, symbol, chromosome, start) and one
list of synonyms, and `tables.json` with the release, the version and the hashes of what they were made from.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote

VERSION = "1.53.0"
ORGANISMS = {"human": "homo-sapiens", "mouse": "mus-musculus"}
OUT = Path(__file__).resolve().parents[1] / "src" / "sc_drugresp" / "genes" / "tables"
CACHE = "package/dist/data/cache"


def pack(version: str, directory: Path) -> Path:
    """Fetch the package through the ordinary client."""
    npm = shutil.which("npm")
    if npm is None:
        msg = "npm is needed to fetch the package"
        raise FileNotFoundError(msg)
    subprocess.run([npm, "pack", "--silent", f"ideogram@{version}"], cwd=directory, check=True)  # noqa: S603 (ours)
    return next(directory.glob("ideogram-*.tgz"))


def member(archive: tarfile.TarFile, name: str) -> tuple[bytes, str]:
    """Bytes of a gzipped member, unpacked, and the SHA-256 of the member as published."""
    handle = archive.extractfile(f"{CACHE}/{name}")
    if handle is None:
        msg = f"{name} is not in the package"
        raise FileNotFoundError(msg)
    packed = handle.read()
    return gzip.decompress(packed), hashlib.sha256(packed).hexdigest()


def lines(text: bytes) -> tuple[str, list[list[str]]]:
    """Header and rows of a cache file."""
    rows = text.decode().splitlines()
    head = "\n".join(row for row in rows if row.startswith("#"))
    return head, [row.split("\t") for row in rows if row and not row.startswith("#")]


def write(path: Path, rows: list[list[str]]) -> dict[str, object]:
    """Write a table that is the same to the byte on every machine."""
    text = "".join("\t".join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
    return {"file": path.name, "rows": len(rows), "sha256": hashlib.sha256(text).hexdigest()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--version", default=VERSION, help="version of the npm package")
    version = parser.parse_args().version
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        package = pack(version, Path(directory))
        record: dict[str, object] = {
            "source": f"npm package ideogram {version}",
            "source_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
            "license": "CC0-1.0",
            "made_by": "scripts/build_gene_tables.py",
            "organisms": {},
        }
        with tarfile.open(package) as archive:
            for organism, species in ORGANISMS.items():
                text, sha = member(archive, f"genes/{species}-genes.tsv.gz")
                head, rows = lines(text)
                release = re.search(r"release-(\d+)/gff3/\w+/\w+?\.(GRC\w+)", head)
                prefix = re.search(r"prefix: (\w+)", head)
                if release is None or prefix is None:
                    msg = f"no release or prefix in the header of {species}: {head[:200]!r}"
                    raise ValueError(msg)
                genes = sorted(
                    ([number, unquote(symbol), chromosome, start] for chromosome, start, _, number, symbol, *_ in rows),
                    key=lambda row: int(row[0]),
                )
                text, synonyms_sha = member(archive, f"synonyms/{species}-synonyms.tsv.gz")
                synonyms = sorted([unquote(name) for name in row] for row in lines(text)[1] if len(row) > 1)
                record["organisms"][organism] = {  # type: ignore[index]
                    "release": f"Ensembl {release[1]}",
                    "assembly": release[2],
                    "prefix": prefix[1],
                    "genes": write(OUT / f"{organism}.tsv.gz", genes) | {"source_sha256": sha},
                    "synonyms": write(OUT / f"{organism}_synonyms.tsv.gz", synonyms) | {"source_sha256": synonyms_sha},
                }
    (OUT / "tables.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
