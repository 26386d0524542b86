"""What pruning changed: predictions, PIEs, Q-Score, prediction depth."""
