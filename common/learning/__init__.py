"""Learning and pruning."""
