"""PIEs against hand-made tables, naive loops and scipy."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.analysis import pie

N_CLASSES = 4
labels_kn = hnp.arrays(
    np.int16,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.integers(0, N_CLASSES - 1),
)

# Three networks, four images, three classes. By column: unanimous, two against one, a three-way
# tie, two against one.
DENSE = np.array([[0, 1, 2, 2], [0, 1, 1, 0], [0, 2, 0, 2]])
PRUNED = np.array([[0, 2, 0, 2], [0, 2, 0, 1], [1, 1, 1, 0]])


def naive_modal(labels: np.ndarray, ties: str) -> list[int]:
    """Count by a loop; of the most frequent labels the lowest or the highest."""
    modal = []
    for n in range(labels.shape[1]):
        votes = Counter(int(labels[k, n]) for k in range(labels.shape[0]))
        winners = [label for label, count in votes.items() if count == max(votes.values())]
        modal.append(min(winners) if ties == "lowest" else max(winners))
    return modal


def test_modal_labels_of_the_table_by_both_tie_rules() -> None:
    assert pie.modal_labels(DENSE, 3).tolist() == [0, 1, 0, 2]
    assert pie.modal_labels(DENSE, 3, ties="highest").tolist() == [0, 1, 2, 2]
    assert pie.modal_labels(PRUNED, 3).tolist() == [0, 2, 0, 0]
    assert pie.modal_labels(PRUNED, 3, ties="highest").tolist() == [0, 2, 0, 2]


def test_pies_of_the_table_depend_on_the_tie_rule() -> None:
    assert pie.find_pies(DENSE, PRUNED, 3).tolist() == [False, True, False, True]
    assert pie.find_pies(DENSE, PRUNED, 3, ties="highest").tolist() == [False, True, True, False]
    assert pie.find_pies(DENSE, PRUNED, 3).dtype == bool


def test_directions_of_a_table() -> None:
    # two right -> wrong, one wrong -> right, three wrong -> wrong, two that are no PIEs
    modal_dense = np.array([1, 2, 0, 0, 1, 2, 1, 2])
    modal_pruned = np.array([0, 1, 2, 1, 2, 0, 1, 2])
    target = np.array([1, 2, 2, 2, 0, 1, 1, 0])
    found = pie.directions(modal_dense, modal_pruned, target)
    assert found == pie.Directions(right_to_wrong=2, wrong_to_right=1, wrong_to_wrong=3)
    assert all(type(count) is int for count in found)  # tables would show numpy's type


@given(labels_kn)
def test_modal_labels_agree_with_scipy_and_a_loop(labels: np.ndarray) -> None:
    expected = scipy.stats.mode(labels, axis=0).mode  # the smallest of the most frequent
    assert pie.modal_labels(labels, N_CLASSES).tolist() == expected.tolist()
    assert pie.modal_labels(labels, N_CLASSES).tolist() == naive_modal(labels, "lowest")
    assert pie.modal_labels(labels, N_CLASSES, "highest").tolist() == naive_modal(labels, "highest")


@given(labels_kn)
def test_votes_count_every_network_once(labels: np.ndarray) -> None:
    votes = pie.count_votes(labels, N_CLASSES)
    assert votes.shape == (labels.shape[1], N_CLASSES)
    for c in range(N_CLASSES):
        assert votes[:, c].tolist() == (labels == c).sum(axis=0).tolist()


@given(labels_kn)
def test_an_image_is_tied_iff_the_tie_rules_differ(labels: np.ndarray) -> None:
    lowest, highest = (pie.modal_labels(labels, N_CLASSES, ties) for ties in ("lowest", "highest"))
    tied = pie.is_tied(pie.count_votes(labels, N_CLASSES))
    assert tied.tolist() == (lowest != highest).tolist()


@given(st.integers(3, 9), st.sets(st.integers(0, 29)), st.integers(0, 2**32 - 1))
def test_planted_disagreements_are_the_pies_and_no_others(
    n_networks: int, planted: set[int], seed: int
) -> None:
    """A clear majority of the pruned networks moves on the planted images; elsewhere a minority
    says something else."""
    rng = np.random.default_rng(seed)
    target = rng.integers(N_CLASSES, size=30)
    dense = np.repeat(target[None], n_networks, axis=0)
    pruned = dense.copy()
    minority = (n_networks - 1) // 2
    pruned[:minority] = rng.integers(N_CLASSES, size=(minority, 30))
    for n in planted:
        pruned[minority:, n] = (target[n] + 1) % N_CLASSES
    pruned = pruned[rng.permutation(n_networks)]
    found = pie.find_pies(dense, pruned, N_CLASSES)
    assert set(np.flatnonzero(found)) == planted
    ways = pie.directions(
        pie.modal_labels(dense, N_CLASSES), pie.modal_labels(pruned, N_CLASSES), target
    )
    assert ways == (len(planted), 0, 0)


def test_populations_of_different_size_can_be_compared() -> None:
    assert pie.find_pies(DENSE, PRUNED[:1], 3).tolist() == [False, True, False, False]


def test_no_images_have_no_pies() -> None:
    nothing = np.zeros((3, 0), dtype=int)
    assert pie.find_pies(nothing, nothing, 3).shape == (0,)


def test_small_integer_types_do_not_overflow() -> None:
    labels = np.full((300, 2000), 9, dtype=np.uint8)  # 300 votes and n x 10 do not fit into a byte
    assert (pie.count_votes(labels, 10)[:, 9] == 300).all()


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.zeros((0, 4), int), np.zeros((1, 2, 3))])
def test_other_shapes_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\[K,N\]"):
        pie.modal_labels(labels, 3)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_out_of_range_are_refused(wrong: int) -> None:
    """An image's vote must not be counted for its neighbour."""
    labels = DENSE.copy()
    labels[0, 0] = wrong
    with pytest.raises(ValueError, match="0 … 2"):
        pie.count_votes(labels, 3)


def test_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="dense saw 4 images, pruned 3"):
        pie.find_pies(DENSE, PRUNED[:, :3], 3)


# Overlap of two sets


def test_overlap_by_hand() -> None:
    a, b = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]], bool)
    found = pie.overlap(a, b)
    assert (found.common, found.jaccard) == (2, 0.5)
    # of the 20 sets of 3 in 6, 1 has three in common with a, 9 two, 9 one, 1 none
    assert found.expected_jaccard == pytest.approx((1 * 1 + 9 * 2 / 4 + 9 * 1 / 5) / 20)
    assert found.p_value == pytest.approx(10 / 20)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_chance_is_the_mean_over_all_sets_of_that_size(n: int, n_a: int, n_b: int, s: int) -> None:
    a, b = (np.random.default_rng(s + i).permutation(n) < size for i, size in ((0, n_a), (1, n_b)))
    found = pie.overlap(a, b)
    others = [np.isin(range(n), chosen) for chosen in combinations(range(n), b.sum())]
    common = np.array([(a & other).sum() for other in others])
    union = np.array([(a | other).sum() for other in others])
    assert found.expected_jaccard == pytest.approx(np.mean(common / np.maximum(union, 1)))
    assert found.p_value == pytest.approx(np.mean(common >= (a & b).sum()))


def test_sets_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="images"):
        pie.overlap(np.zeros(3, bool), np.zeros(4, bool))
