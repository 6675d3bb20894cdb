"""Students of embeddings: trained on some samples, measured on others."""
