"""How fast every stage is, against the ways of the released code: `python -m tests.benchmarks`."""
