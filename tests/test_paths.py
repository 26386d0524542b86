"""File names are a contract with the users: they are spelled out here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import paths
from common.paths import Cell

MODELS, PIES = Path("models/digits"), Path("pies/digits")
GLOBAL = Cell("supervised", "global", 0.9)
LATER = Cell("SupCon", "later_GMP", 0.975)
CELLS = [
    Cell(learner, pruning_method, sparsity)
    for learner in ("supervised", "SupCon")
    for pruning_method, sparsity in (
        ("dense", 0.0),
        *((method, s) for method in ("GMP", "later_GMP", "global") for s in (0.3, 0.9, 0.975)),
    )
]


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(
    ("sparsity", "text"),
    [
        (0, "0.00"),
        (0.0, "0.00"),
        (0.5, "0.50"),
        (0.9, "0.90"),
        (0.97, "0.97"),
        (0.975, "0.975"),
        (0.1 + 0.2, "0.30"),
        (0.999, "0.999"),
        (0.0123456789, "0.0123456789"),
    ],
)
def test_sparsities_have_as_many_decimals_as_they_need(sparsity: float, text: str) -> None:
    assert paths.format_sparsity(sparsity) == text


@settings(max_examples=100)
@given(st.floats(0, 1, exclude_max=True).map(lambda x: round(x, 10)))
def test_a_sparsity_is_read_back_from_its_text(sparsity: float) -> None:
    text = paths.format_sparsity(sparsity)
    assert float(text) == sparsity
    decimals = text.partition(".")[2]
    assert len(decimals) >= 2
    assert len(decimals) == 2 or not decimals.endswith("0")


def test_cells_are_named_by_learner_pruning_and_sparsity() -> None:
    assert str(GLOBAL) == "supervised global 0.90"
    assert paths.dense_cell("SupCon") == Cell("SupCon", "dense", 0.0)


@pytest.mark.parametrize(
    ("learner", "script"), [("supervised", "sup_training.py"), ("SupCon", "clr_training.py")]
)
def test_the_training_script_of_a_learner(learner: str, script: str) -> None:
    assert paths.training_script(learner) == script


def test_checkpoints_have_the_names_of_the_contract() -> None:
    assert paths.checkpoints(MODELS, GLOBAL, 3) == {
        "network": Path("models/digits/supervised_global_s0.90_id03.pt")
    }
    assert paths.checkpoints(MODELS, LATER, 12) == {
        "encoder": Path("models/digits/SupCon_later_GMP_s0.975_id12_encoder.pt"),
        "head": Path("models/digits/SupCon_later_GMP_s0.975_id12_head.pt"),
    }
    dense = paths.checkpoints(MODELS, paths.dense_cell("supervised"), 123)
    assert dense == {"network": Path("models/digits/supervised_dense_s0.00_id123.pt")}


def test_results_have_the_names_of_the_contract() -> None:
    assert paths.summary(PIES) == PIES / "summary.csv"
    assert (
        paths.pie_table(PIES, GLOBAL) == PIES / "supervised/pies_distribution/pies_global_s0.90.csv"
    )


def test_figures_have_the_names_of_the_released_code() -> None:
    names = {
        paths.pies_distribution(PIES, GLOBAL): "supervised/pies_distribution/"
        "PIEs_distribution_supervised_0.90sparsity_global_pruning.png",
        paths.q_score(PIES, LATER, "Q-SCORE"): "SupCon/q_score/"
        "Q-SCORE_later_GMP_sparsity0.975_SupCon.png",
        paths.umap(PIES, GLOBAL): "supervised/umap/"
        "UMAP_Classes_supervised_sparsity0.90_global_pruning.png",
        paths.prediction_depth(PIES, LATER, 30): "SupCon/prediction_depth/"
        "Prediction_Depth_PIEs_SupCon_later_GMP_0.975sparsity_30knn.png",
    }
    assert {path: path.relative_to(PIES).as_posix() for path in names} == names


def every_file(cell: Cell, network_id: int) -> list[Path]:
    """All files of one network and of its population."""
    logs = Path("logs/digits")
    return [
        *paths.checkpoints(MODELS, cell, network_id).values(),
        paths.training_state(MODELS, cell, network_id),
        paths.lock(paths.training_state(MODELS, cell, network_id)),
        paths.log(logs, cell, network_id),
        paths.curves(PIES, cell, network_id),
        paths.predictions(PIES, cell, network_id),
        paths.probe_predictions(PIES, cell, network_id),
        paths.umap_array(PIES, cell, network_id),
    ]


def test_no_two_things_share_a_file() -> None:
    files = [path for cell in CELLS for i in (0, 1, 10, 100) for path in every_file(cell, i)]
    for cell in CELLS:
        files += [paths.pie_table(PIES, cell), paths.pies_distribution(PIES, cell)]
        files += [paths.umap(PIES, cell)]
        files += [paths.q_score(PIES, cell, s) for s in ("Q-SCORE", "Z-SCORE", "L1_NORM")]
        files += [
            paths.prediction_depth(PIES, cell, knn, kind)
            for knn in (5, 30)
            for kind in ("PIEs", "Q-SCORE", "probe_accuracy")
        ]
    files += [
        paths.learner_comparison(PIES, kind, cell.pruning_method, cell.sparsity)
        for kind in ("common_PIEs", "disagreement")
        for cell in CELLS
        if cell.learner == "SupCon"
    ]
    # A figure's arrays lie beside it under the same name.
    files += [path.with_suffix(".npz") for path in files if path.suffix == ".png"]
    assert len(files) == len(set(files))


def test_a_lock_is_hidden_beside_what_it_guards() -> None:
    lock = paths.lock(Path("pies/digits/summary.csv"))
    assert lock.parent == Path("pies/digits")
    assert lock.name.startswith(".")
    assert lock.name.endswith(".lock")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_networks_are_found_again(cell: Cell, tmp_path: Path) -> None:
    for network_id in (0, 7, 99, 100):
        touch(*paths.checkpoints(tmp_path, cell, network_id).values())
    assert paths.networks_present(tmp_path) == {cell: {0, 7, 99, 100}}


def test_cells_are_listed_in_a_fixed_order(tmp_path: Path) -> None:
    """Sparsities ascending, whatever the order of the folder."""
    cells = [*CELLS, *(GLOBAL._replace(sparsity=sparsity) for sparsity in (0.5, 0.505, 0.51))]
    for cell in reversed(cells):
        touch(*paths.checkpoints(tmp_path, cell, 0).values())
    found = list(paths.networks_present(tmp_path))
    assert found == sorted(cells)


def test_half_a_network_is_not_there(tmp_path: Path) -> None:
    touch(paths.checkpoints(tmp_path, LATER, 0)["encoder"])
    touch(paths.checkpoints(tmp_path, LATER, 1)["head"])
    assert paths.networks_present(tmp_path) == {}


def test_other_files_are_not_networks(tmp_path: Path) -> None:
    touch(
        paths.training_state(tmp_path, GLOBAL, 0),
        tmp_path / "supervised_global_s0.90_id0.pt",  # an id has two digits
        tmp_path / "supervised_global_s0.9_id00.pt",
        tmp_path / "supervised_random_s0.90_id00.pt",
        tmp_path / "supervised_global_s0.90_id00.pt.bak",
        tmp_path / "copy_of_supervised_global_s0.90_id00.pt",
        tmp_path / ".supervised_global_s0.90_id00.123.tmp.pt",
        tmp_path / "deeper" / "supervised_global_s0.90_id00.pt",
    )
    assert paths.networks_present(tmp_path) == {}


def test_a_missing_folder_has_no_networks(tmp_path: Path) -> None:
    assert paths.networks_present(tmp_path / "nothing") == {}
