"""Make `tests/golden` from the folder of full recordings: `python scripts/pack_golden.py RECORDINGS [--out FOLDER]`.

`RECORDINGS` holds one folder per model: `weights/` (a tiny random checkpoint in the published format), `input.h5ad`,
`expected.npz` (what the original software gave) and `manifest_full.json` (names and shapes of the published tensors).
No number that a test reads is changed. Left out or cut are

- arrays that were recorded but that no test reads (`UNREAD`),
- files that loading does not need (`UNNEEDED`),
- rows of tensors that the encoders drop by name: each keeps its name and its first rows (`SHORTENED`), so that dropping
  them is still tested.

The same recordings give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

OUT = Path(__file__).resolve().parents[1] / "tests" / "golden"

UNREAD = {
    "celllm": r"cell0_logits|batch24_.*|mask|log2_norm|genes|cell_names",
    "cellplm": r"gmvae_seed42_y|cell_names",
    "geneformer": r"V\d_rank_tied|V\d_attention_mask|V\d_cell0_logits_first8",
    "scbert": r"cell0_logits|batch24_emb_last|passes_min_genes_200|cell_names",
    "scfoundation": r"gene_.*",
    "scgpt": r"full_(offsets|gene_ids|counts|bins_.*)|(stoch|det)_pad_mask",
    "tgpt": r"lines|attention_mask",
    "uce": r"sample_prob|mask|traced_rows|X_uce_f64|nofilter_(genes|sampled_gene_idx|chrom_order|seq_len)",
}
UNNEEDED = r"README\.md|gene2vec_.*\.npy"
# Names of tensors inside a checkpoint, with `/` between nested keys, and the rows that they keep.
SHORTENED = {
    "cellplm": (r".*/(embedder\.pe_enc\.|decoder\.).*", 4),
    "scbert": (r"optimizer_state_dict/.*", 1),
    "scfoundation": (r"gene/state_dict/.*|(cell|rde)/state_dict/model\.decoder\..*", 1),
}


def shorten(content: Any, pattern: str, rows: int, name: str = "") -> Any:
    """Nested content of a checkpoint with fewer rows in the tensors whose whole name matches."""
    if isinstance(content, dict):
        parts = {
            key: shorten(value, pattern, rows, f"{name}/{key}" if name else str(key)) for key, value in content.items()
        }
        return type(content)(parts)
    if isinstance(content, torch.Tensor) and content.ndim and re.fullmatch(pattern, name):
        return content[:rows].clone()  # a copy: a view would be saved with its whole storage
    return content


def pack_arrays(source: Path, target: Path, unread: str) -> None:
    with np.load(source) as file:
        np.savez_compressed(target, **{name: file[name] for name in file.files if not re.fullmatch(unread, name)})


def pack_weights(source: Path, target: Path, model: str) -> None:
    if model not in SHORTENED or source.suffix not in {".pth", ".ckpt"}:
        shutil.copyfile(source, target)
        return
    content = torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251
    torch.save(shorten(content, *SHORTENED[model]), target)


def pack(source: Path, target: Path) -> None:
    """One model."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir() or re.fullmatch(UNNEEDED, path.name):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "expected.npz":
            pack_arrays(path, place, UNREAD[source.name])
        elif path.name == "manifest_full.json":
            place.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":")) + "\n")
        else:
            pack_weights(path, place, source.name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make tests/golden from the folder of full recordings.")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    for source in sorted(path for path in arguments.recordings.iterdir() if path.is_dir()):
        target = arguments.out / source.name
        shutil.rmtree(target, ignore_errors=True)
        pack(source, target)
        files = [path for path in target.rglob("*") if path.is_file()]
        sizes = [path.stat().st_size for path in files]
        print(f"{source.name:14}{sum(sizes) / 1e6:6.2f} MB in {len(files)} files, largest {max(sizes) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
