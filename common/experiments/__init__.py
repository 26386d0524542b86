"""The four experiments. Each module reads top to bottom as the description of one of them."""
