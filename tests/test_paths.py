"""File names are a contract with the users: they are spelled out here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common import paths, study
from common.paths import NetworkFiles
from common.study import Cell

MODELS, PIES = Path("models/digits"), Path("pies/digits")
GLOBAL = Cell("supervised", "global", 0.9)
LATER = Cell("SupCon", "later_GMP", 0.975)
CELLS = [
    Cell(learner, pruning_method, sparsity)
    for learner in study.LEARNERS
    for pruning_method, sparsity in (
        ("dense", 0.0),
        *((method, s) for method in study.PRUNINGS for s in (0.3, 0.9, 0.975)),
    )
]


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_checkpoints_have_the_names_of_the_contract() -> None:
    names = {
        (GLOBAL, 3): ["supervised_global_s0.90_id03.pt"],
        (study.dense_cell("supervised"), 123): ["supervised_dense_s0.00_id123.pt"],
        (GLOBAL._replace(pruning_method="random_global"), 0): [
            "supervised_random_global_s0.90_id00.pt"
        ],
        (LATER, 12): [
            "SupCon_later_GMP_s0.975_id12_encoder.pt",
            "SupCon_later_GMP_s0.975_id12_head.pt",
        ],
    }
    for network, expected in names.items():
        files = NetworkFiles(MODELS, *network).parts.values()
        assert list(files) == [MODELS / name for name in expected]


def test_results_have_the_names_of_the_contract_and_figures_those_of_the_released_code() -> None:
    names = {
        paths.summary(PIES): "summary.csv",
        paths.rows(PIES, LATER, "depth"): "rows/depth.SupCon_later_GMP_s0.975.csv",
        paths.pie_table(PIES, GLOBAL): "supervised/pies_distribution/pies_global_s0.90.csv",
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
    """All files of one network."""
    state = NetworkFiles(MODELS, cell, network_id).state
    return [
        *NetworkFiles(MODELS, cell, network_id).parts.values(),
        *(state, paths.lock(state), paths.temporary(state, "7"), paths.temporary(state, "17")),
        paths.log(Path("logs/digits"), cell, network_id),
        paths.predictions(PIES, cell, network_id),
        paths.probe_predictions(PIES, cell, network_id),
        paths.umap_array(PIES, cell, network_id),
    ]


def test_no_two_things_share_a_file() -> None:
    files = [path for cell in CELLS for i in (0, 1, 10, 100) for path in every_file(cell, i)]
    for cell in CELLS:
        files += [paths.rows(PIES, cell, analysis) for analysis in ("training", "depth")]
        files += [
            paths.curves(PIES, cell),
            paths.pie_table(PIES, cell),
            paths.pies_distribution(PIES, cell),
        ]
        files += [paths.pies_distribution(PIES, cell, "class_impact"), paths.umap(PIES, cell)]
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


def test_leftovers_of_a_network_are_its_state_and_half_written_files_alone(tmp_path: Path) -> None:
    network, other = (NetworkFiles(tmp_path, LATER, network_id) for network_id in (1, 11))
    written = [*network.parts.values(), network.state]
    left = [paths.temporary(path, process) for path in written for process in ("7", "4711")]
    others = [paths.temporary(path, "7") for path in (*other.parts.values(), other.state)]
    touch(*written, *left, *others, other.state, paths.lock(network.state), tmp_path / "a.7.tmp.pt")
    assert sorted(network.leftovers) == sorted([network.state, *left])


def test_a_lock_is_hidden_beside_what_it_guards() -> None:
    assert paths.lock(PIES / "summary.csv") == PIES / ".summary.csv.lock"


# Names that are read back


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_networks_and_pies_are_found_again(cell: Cell, tmp_path: Path) -> None:
    for network_id in (0, 7, 99, 100):
        touch(*NetworkFiles(tmp_path, cell, network_id).parts.values())
    assert paths.networks_present(tmp_path) == {cell: {0, 7, 99, 100}}
    for part in NetworkFiles(tmp_path, cell, 99).parts.values():
        assert paths.locate(part) == (tmp_path, cell, 99)
    if not cell.is_dense:
        arrays = paths.pies_distribution(tmp_path, cell).with_suffix(".npz")
        touch(arrays, paths.pies_distribution(tmp_path, cell, "class_impact").with_suffix(".npz"))
        copy = tmp_path / "a_copy_of_the_folder" / arrays.relative_to(tmp_path / cell.learner)
        touch(copy)  # of no learner
        assert paths.pies_files(tmp_path) == {cell: arrays}


def test_cells_are_listed_in_a_fixed_order(tmp_path: Path) -> None:
    """Sparsities ascending, whatever the order of the folder."""
    cells = [*CELLS, *(GLOBAL._replace(sparsity=sparsity) for sparsity in (0.5, 0.505, 0.51))]
    for cell in reversed(cells):
        touch(*NetworkFiles(tmp_path, cell, 0).parts.values())
    assert list(paths.networks_present(tmp_path)) == sorted(cells)


def test_half_a_network_or_another_file_is_none(tmp_path: Path) -> None:
    touch(
        NetworkFiles(tmp_path, LATER, 0).parts["encoder"],
        NetworkFiles(tmp_path, LATER, 1).parts["head"],
        NetworkFiles(tmp_path, GLOBAL, 0).state,
        tmp_path / "supervised_global_s0.90_id0.pt",  # an id has two digits
        tmp_path / "supervised_global_s0.9_id00.pt",
        tmp_path / "supervised_random_s0.90_id00.pt",
        tmp_path / "supervised_global_s0.90_id00.pt.bak",
        tmp_path / "copy_of_supervised_global_s0.90_id00.pt",
        tmp_path / ".supervised_global_s0.90_id00.123.tmp.pt",
        tmp_path / "deeper" / "supervised_global_s0.90_id00.pt",
    )
    assert paths.networks_present(tmp_path) == {}
    assert paths.networks_present(tmp_path / "nothing") == {}
    assert paths.locate(tmp_path / "supervised_random_s0.90_id00.pt") is None


def test_rows_tell_their_analysis_and_half_written_ones_are_not_read(tmp_path: Path) -> None:
    rows = [paths.rows(tmp_path, cell, analysis) for cell in CELLS for analysis in ("pies", "x")]
    touch(*rows, paths.earlier_rows(tmp_path), paths.temporary(rows[0], "7"), tmp_path / "a.csv")
    assert paths.rows_files(tmp_path) == sorted([*rows, paths.earlier_rows(tmp_path)])
    assert {paths.analysis_of(path) for path in rows} == {"pies", "x"}


# Names of data sets


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("cifar10", "cifar10"),
        ("svhn", "svhn"),
        ("images/flowers", "flowers"),
        ("images/flowers/", "flowers"),
        ("images//flowers/.", "flowers"),
        ("images/flowers/train/..", "flowers"),
        ("link", "link"),
        ("link/", "link"),
        (".", "here"),
        ("./", "here"),
        ("..", "above"),
        ("../", "above"),
        ("../here", "here"),
        ("../../above", "above"),
        ("not_there/either", "either"),
    ],
)
def test_a_folder_is_named_by_its_last_component_as_written(
    dataset: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "above" / "here"
    (here / "images" / "flowers" / "train").mkdir(parents=True)
    (here / "link").symlink_to(here / "images" / "flowers")
    monkeypatch.chdir(here)
    assert paths.dataset_name(dataset) == name
    assert paths.dataset_name(dataset, here / "models") == name  # where no networks are
    if dataset not in study.DATASETS:
        assert paths.dataset_name(os.path.join(here, dataset)) == name  # noqa: PTH118


def test_networks_stored_under_the_name_of_a_links_target_are_still_found(tmp_path: Path) -> None:
    """Earlier versions named them so; who has networks under the link's own name means those."""
    link, models = tmp_path / "link", tmp_path / "models"
    (tmp_path / "flowers").mkdir()
    link.symlink_to(tmp_path / "flowers")
    assert paths.dataset_name(str(link), models) == "link"
    (models / "flowers").mkdir(parents=True)
    assert paths.dataset_name(str(link), models) == "flowers"
    assert paths.dataset_name(str(link)) == "link"
    (models / "link").mkdir()
    assert paths.dataset_name(str(link), models) == "link"
    assert paths.dataset_name(str(tmp_path / "flowers"), models) == "flowers"
