"""How networks learn and how they are pruned."""
