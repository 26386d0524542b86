"""What every analysis script writes at its end: claims, main table, report."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from common import paths
from common.analysis import summary
from common.experiments import claims, comparison
from common.figures import report
from common.runtime import write_csv


def run(pies: Path) -> None:
    """Rewrite them from what is stored; both learners' scripts may get here at once."""
    with FileLock(paths.lock(paths.report(pies))):
        comparison.run(pies)
        claims.run(pies)
        lines = [summary.table(pies, learner) for learner in paths.LEARNERS]
        write_csv(paths.main_table(pies), [*lines[0], *lines[1][1:]])
        report.write(pies)
