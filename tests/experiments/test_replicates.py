"""Two populations of one recipe: their counts, from the labels of each network by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from running import Study, detect, finetune, train

from common import files, options, paths, study
from common.report import rows
from common.study import Cell

DENSE = study.dense_cell("supervised")
PRUNED = Cell("supervised", "global", 0.9)


def mode(small: Study, cell: Cell, ids: tuple[int, int]) -> np.ndarray:
    """The class that two networks predict; of two different ones the lower."""
    stored = (files.load_arrays(paths.predictions(small.pies, cell, i)) for i in ids)
    return np.minimum(*(arrays["labels"] for arrays in stored if arrays is not None))


def counts(small: Study, cell: Cell) -> Iterator[tuple[str, float]]:
    for row in rows.read(small.pies):
        if row.cell == cell and row.metric in (
            "n_pies_dense_null", "n_pies_pruned_null", "n_pies_unpaired"
        ):  # fmt: skip
            yield row.metric, row.value


@pytest.mark.usefixtures("numbers_only")
def test_counts_of_fresh_networks(study_copy: Study) -> None:
    study_copy.run(train("supervised", "--index_start", "2"))
    fresh = ("--index_start", "2", "--pruning_percentages", "0.9")
    study_copy.run(finetune("supervised", *fresh))
    study_copy.run(detect("supervised", "--replicate_index_start", "2"))
    a, b = (mode(study_copy, DENSE, ids) for ids in ((0, 1), (2, 3)))
    c, d = (mode(study_copy, PRUNED, ids) for ids in ((0, 1), (2, 3)))
    assert dict(counts(study_copy, DENSE)) == {"n_pies_dense_null": (a != b).sum()}
    assert dict(counts(study_copy, PRUNED)) == {
        "n_pies_pruned_null": (c != d).sum(),
        "n_pies_unpaired": ((a != d).sum() + (b != c).sum()) / 2,
    }
    assert not dict(counts(study_copy, PRUNED._replace(sparsity=0.5)))  # has no fresh networks
    study_copy.run(detect("supervised"))  # without the flag: the counts stay
    assert dict(counts(study_copy, DENSE)) == {"n_pies_dense_null": (a != b).sum()}
    study_copy.run(train("supervised", "--overwrite"))  # the same recipe, so the same networks
    assert dict(counts(study_copy, DENSE)) == {"n_pies_dense_null": (a != b).sum()}


def test_the_older_name_of_the_flag_is_taken() -> None:
    parser = options.pie_detection("", "supervised")
    assert parser.parse_args(["--null_index_start", "30"]).replicate_index_start == 30
