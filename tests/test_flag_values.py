"""Which texts the flags accept, value by value and at their bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from common import flag_values, study

NO_NUMBERS = (
    "",
    " ",
    "two",
    "nan",
    "inf",
    "-inf",
    "1_0",
    " 5",
    "٣",
    "1e",
    "0x10",
    "1,5",
    "9" * 5000,
)
ACCEPTED = [
    (flag_values.positive, {"1e-9": 1e-9, ".5": 0.5, "3": 3.0, "+2.": 2.0}),
    (flag_values.not_negative, {"0": 0.0, "5E-4": 5e-4}),
    (flag_values.epochs, {"0": 0, "12": 12, "1.25": 1.25}),  # whole ones as older files hold them
    (flag_values.fraction, {"0": 0.0, "0.999": 0.999}),
    (flag_values.share, {"1": 1.0, "0.001": 0.001}),
    (flag_values.integer(1, 10), {"1": 1, "10": 10, "+7": 7, "007": 7}),
    (flag_values.integer(-1, 5), {"-1": -1, "0": 0}),
    (flag_values.depth, {"10": 10, "16": 16, "28": 28}),
    (
        flag_values.sparsities,
        {
            "0.0,0.9": [0.0, 0.9],
            "0": [0.0],
            " .5, 0.3": [0.5, 0.3],
            "9e-1": [0.9],
            "0.30000000000000004": [0.3],  # 0.1 + 0.2, as a script would print it
        },
    ),
    (
        flag_values.prunings,
        {
            "GMP, global,later GMP": ["GMP", "global", "later_GMP"],  # the released spelling
            "random_GMP": ["random_GMP"],
            ",".join(study.PRUNINGS): list(study.PRUNINGS),
        },
    ),
    (flag_values.dataset, {name: name for name in study.DATASETS}),
]
REFUSED = [
    (flag_values.positive, (*NO_NUMBERS, "0", "-0.1", "1e999")),
    (flag_values.not_negative, (*NO_NUMBERS, "-1e-9")),
    (flag_values.epochs, (*NO_NUMBERS, "-1", "-0.5")),
    (flag_values.share, (*NO_NUMBERS, "0", "1.01", "-1")),
    (flag_values.fraction, (*NO_NUMBERS, "1", "1.0", "-0.1", "1.5")),
    (flag_values.integer(1, 10), (*NO_NUMBERS, "0", "11", "-1", "1.0", "1e1", "--1")),
    (flag_values.depth, (*NO_NUMBERS, "15", "14", "12", "4", "1006", "16.0", "-2")),
    (flag_values.sparsities, (*NO_NUMBERS, "-0.1", "1.0", ",", "0.3,,0.5", "0.3,", "0.3;0.5")),
    # The last one is 1 when it is rounded to the ten decimals that file names have.
    (flag_values.sparsities, ("0.5,0.5", "0.5,0.50", "0.0,-0.0", "0.99999999999")),
    (flag_values.prunings, ("magic", "", "GMP,", "GMP,GMP", "later GMP,later_GMP", "dense")),
    (flag_values.dataset, ("cifar", "", "no/such/folder", "a\0b", "x" * 300)),
    (flag_values.folder, ("", "a\0b", "x" * 300, "a/" + "x" * 300, "long/" * 1000)),
]
Type = Callable[[str], object]


def each(table: list[tuple[Type, object]]) -> list[object]:
    return [
        pytest.param(kind, text, id=f"{i}-{text[:20]!r}")
        for i, (kind, texts) in enumerate(table)
        for text in texts
    ]


@pytest.mark.parametrize(("kind", "text"), each(ACCEPTED))
def test_values_are_read(kind: Type, text: str) -> None:
    (expected,) = (texts[text] for known, texts in ACCEPTED if known is kind)
    assert kind(text) == expected
    assert type(kind(text)) is type(expected)


@pytest.mark.parametrize(("kind", "text"), each(REFUSED))
def test_other_values_are_refused_with_what_would_be_accepted(kind: Type, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"give |a folder") as refused:
        kind(text)
    assert repr(text) in str(refused.value)


def test_minus_zero_is_zero() -> None:
    """Sparsities become parts of file names, where -0.00 would be another population."""
    assert str(flag_values.sparsities("-0.0")) == "[0.0]"


def test_folders_may_be_there_or_not_but_are_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("file").write_text("something")
    for name in ("there", "not/yet", str(tmp_path / "there")):
        assert flag_values.folder(name) == Path(name)
    assert flag_values.dataset("./there/") == "./there/"
    for kind in (flag_values.folder, flag_values.dataset):
        with pytest.raises(argparse.ArgumentTypeError, match="this is a file"):
            kind("file")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "file"}
