"""How fast every stage is, against the ways of the released code: `python -m tests.benchmarks`."""

import argparse


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark, whose help is its module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
