"""Embeddings on disk, block by block: what was finished survives a kill, a full disk and a damaged file."""
