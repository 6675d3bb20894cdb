"""Reference models: what the drug screens of cell lines say about expression, and about how far that can be trusted."""
