"""The four experiments. A module named after an experiment describes it from top to bottom."""
