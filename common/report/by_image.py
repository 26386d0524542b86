"""The table with one row for each test image. pies_*.csv, the gallery and the figures by image are
made from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import files
from common.analysis import votes
from common.analysis.predictions import Population
from common.files import Arrays


class Score(NamedTuple):
    """A number for each network and image. Its mean over the dense networks is one column of the
    table, its mean over the pruned networks another."""

    field: str  # its name in the stored predictions and, before _dense and _pruned, in pies_*.csv
    metric: str  # its name in summary.csv
    title: str
    figure: str  # its name in the file of the scatter plot, dense against pruned


SCORES = (
    Score("q", "q_score", "Q-Score", "Q-SCORE"),
    Score("z", "z_score", "Z-Score", "Z-SCORE"),
    Score("l1", "l1_norm", "L1 norm", "L1_NORM"),
    Score("softmax_margin", "softmax_margin", "Softmax margin", "SOFTMAX_MARGIN"),
)
# Columns by which the gallery can be sorted, and what the page calls them.
GALLERY = {
    "vote_distance": "distance between votes",
    "pie_probability": "probability of being a PIE",
    "margin_pruned": "margin of the pruned votes",
    "softmax_margin_pruned": "softmax margin, pruned",
}


def columns(found: Arrays, dense: Population, pruned: Population) -> Arrays:
    """The columns [N] for the images of a cell, from votes and from scores of the networks. For
    K < 4 there is no probability of being a PIE."""
    classes = found["classes"]
    table = {
        "index": np.arange(len(found["label"])),
        "label": classes[found["label"]],
        "modal_dense": classes[found["modal_dense"]],
        "modal_pruned": classes[found["modal_pruned"]],
        "votes_dense": found["votes_dense"].max(axis=1),
        "votes_pruned": found["votes_pruned"].max(axis=1),
        "is_pie": found["is_pie"].astype(int),
    }
    populations = {"dense": dense, "pruned": pruned}
    for name, of_votes in (("margin", votes.vote_margin), ("entropy", votes.vote_entropy)):
        table |= {f"{name}_{which}": of_votes(found[f"votes_{which}"]) for which in populations}
    table |= {name: found[name] for name in ("vote_distance", "pie_probability") if name in found}
    for score in SCORES:
        table |= {f"{score.field}_{w}": p.mean_score(score.field) for w, p in populations.items()}
    return table


def write_csv(path: Path, table: Arrays) -> None:
    """Write the table with one row for each image."""
    rows = zip(*(column.tolist() for column in table.values()), strict=True)
    shown = ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    files.write_csv(path, [list(table), *shown])
