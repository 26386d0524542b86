"""Statistics of predictions and embeddings: arrays in, arrays out."""
