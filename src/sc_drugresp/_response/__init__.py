"""Response models: features, heads, cross-validation, trust, prediction."""
