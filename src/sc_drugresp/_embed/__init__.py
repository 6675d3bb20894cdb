"""From counts to an embedding: which embedder, over which cells, noted where."""
