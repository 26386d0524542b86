"""The last step of every analysis: rewrite what compares cells, from overlaps to the page."""

from __future__ import annotations

from pathlib import Path

from common import files, locks, paths
from common.report import claims, comparison, page, summary
from common.study import LEARNERS


def run(pies: Path) -> None:
    """Rewrite overlaps, claims, main table and page from stored files. Both learners' scripts may
    get here at once."""
    with locks.held(paths.report(pies)):
        comparison.run(pies)
        claims.run(pies)
        lines = [summary.table(pies, learner) for learner in LEARNERS]
        files.write_csv(paths.main_table(pies), [*lines[0], *lines[1][1:]])
        page.write(pies)
