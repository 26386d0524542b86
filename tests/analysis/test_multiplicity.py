"""Holm's correction against tables computed by hand, and its promised error rate by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.analysis.multiplicity import Answer, combine, holm, p_from_interval, verdicts

NAN = float("nan")


def test_a_table_by_hand() -> None:
    """Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and the last is no less than .06."""
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_ties_and_the_ceiling_by_hand() -> None:
    assert holm([0.02, 0.02, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([0.3]) == pytest.approx([0.3])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_between_the_p_value_and_bonferronis_in_the_same_order(p_values: list[float]) -> None:
    p = np.array(p_values)
    found = holm(p)
    assert (found >= p).all()
    assert (found <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(found[p.argsort(kind="stable")]) >= 0).all()


def test_p_value_of_normal_and_student_intervals() -> None:
    half = stats.norm.ppf(0.975)
    assert p_from_interval(3, 3 - half, 3 + half) == pytest.approx(2 * stats.norm.sf(3))
    sample = np.array([0.3, 1.9, 1.1, -0.2, 2.2])
    low, high = stats.t.interval(0.95, 4, sample.mean(), stats.sem(sample))
    expected = stats.ttest_1samp(sample, 0).pvalue
    assert p_from_interval(sample.mean(), low, high, df=4) == pytest.approx(expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_p_value_uses_the_side_of_zero_and_agrees_with_the_interval(sign: int) -> None:
    skewed = [(2, 0.1, 30), (2, -0.1, 2.5), (2, 0, 9)]
    p = []
    for value, *ends in skewed:
        low, high = sorted(sign * end for end in ends)
        p.append(p_from_interval(sign * value, low, high))
    assert p[0] < 0.05 < p[1]
    assert p[2] == pytest.approx(0.05)


def test_p_value_without_width_or_interval() -> None:
    assert p_from_interval(0, 0, 0) == 1
    assert np.isnan(p_from_interval(0.002, 0.002, 0.002, df=1))  # two networks that agree
    assert np.isnan(p_from_interval(1, NAN, NAN))


def test_verdicts_of_a_family() -> None:
    """Times 5, 4, 3: the third fails only when corrected; what was not tested counts."""
    numbers = [(True, 0.0003), (False, 0.0027), (True, 0.036), (True, 0.3), (False, NAN)]
    family = [Answer(*number, is_complete=True) for number in numbers]
    found = verdicts(family)
    expected = ["supported", "contradicted", "marginal", "undecided", "not tested"]
    assert [one.verdict for one in found] == expected
    assert [one.p_value for one in found][:3] == pytest.approx([0.0015, 0.0108, 0.108])
    assert verdicts(family[2:3])[0].verdict == "supported"
    assert verdicts([]) == []


def test_a_claim_is_as_sure_as_its_least_sure_number_and_one_contradicts_it() -> None:
    assert combine([(1, 0.01), (2, 0.04), (3, 0.02)], 3) == (True, 0.04, True)
    assert combine([(1, 0.001), (-2, 0.04), (-3, 0.002)], 5) == (False, 0.01, True)
    assert combine([(1, 0.001), (-2, 0.4)], 5) == (False, 1, True)
    assert combine([(0, 1)], 1) == (False, 1, True)
    assert np.isnan(combine([], 3).p_value)


def test_a_claim_is_not_easier_to_support_the_less_of_it_is_tested() -> None:
    sure = (0.3, 0.001)
    for missing in ([], [(0.3, NAN)]):
        few = combine([sure, *missing], 2)
        assert verdicts([few])[0].verdict == "incomplete"
        assert np.isnan(verdicts([few])[0].p_value)
    assert verdicts([combine([sure, (0.3, 0.4)], 3)])[0].verdict == "undecided"
    assert verdicts([combine([sure, sure], 2)])[0].verdict == "supported"
    # a claim beside it is corrected as if this one were undecided
    assert [one.verdict for one in verdicts([few, combine([(1, 0.03)], 1)])][1] == "marginal"


def test_a_claim_of_true_and_false_parts_is_rarely_supported() -> None:
    """2,000 claims of three numbers, of which one is 0 and two are surely above: 2.5 % support."""
    rng = np.random.default_rng(1)
    values = rng.normal([0, 9, 9], size=(2000, 3))
    p_values = 2 * stats.norm.sf(np.abs(values))
    found = [
        combine(list(zip(*pair, strict=True)), 3) for pair in zip(values, p_values, strict=True)
    ]
    verdict = [verdicts([one])[0].verdict for one in found]
    assert 0.015 <= verdict.count("supported") / 2000 <= 0.035
    assert verdict.count("contradicted") / 2000 <= 0.02


def test_wrong_verdicts_in_a_family_are_as_rare_as_promised() -> None:
    """22 statistics that are 0, correlated or not, 2,000 families: one is decided in 5 %."""
    rng = np.random.default_rng(0)
    for shared in (0.0, 0.8):
        values = rng.normal(size=(2000, 22)) * (1 - shared) ** 0.5
        values += rng.normal(size=(2000, 1)) * shared**0.5
        wrong = [(holm(2 * stats.norm.sf(np.abs(row))) < 0.05).any() for row in values]
        assert np.mean(wrong) <= 0.06
