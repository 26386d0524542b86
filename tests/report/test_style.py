"""A figure and its arrays are kept together: drawn when they change, and only then."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image, rc_context
from matplotlib.figure import Figure

from common import files
from common.files import Arrays
from common.report import style

OF_CELL = {"learner": "SupCon", "pruning_method": "GMP", "sparsity": "0.90", "n_examples": 500}
CONTENTS = {"y": np.array([1.0, np.nan, 2.0]), "title": np.array("costs 5$, then $6")}


class Recorder:
    """Draws a line, and counts."""

    calls = 0

    def __call__(self, a: Arrays) -> Figure:
        self.calls += 1
        figure, axes = style.new_axes()
        axes.plot(a["y"], marker="o")
        axes.set_title(str(a["title"]))
        return figure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "figures" / "figure.png"


@pytest.fixture
def draw(path: Path) -> Recorder:
    """Has drawn the figure once."""
    draw = Recorder()
    style.keep(path, draw, CONTENTS)
    assert draw.calls == 1
    assert {p.name for p in path.parent.iterdir()} == {"figure.png", "figure.npz"}
    return draw


def pixels(a: Arrays) -> np.ndarray:
    buffer = io.BytesIO()
    with rc_context(style.STYLE):
        Recorder()(a).savefig(buffer)
    buffer.seek(0)
    return image.imread(buffer)


def test_nothing_is_drawn_when_nothing_has_changed(path: Path, draw: Recorder) -> None:
    """An undefined score is no change."""
    before = [p.stat().st_mtime_ns for p in (path, path.with_suffix(".npz"))]
    time.sleep(0.02)
    style.keep(path, draw, {name: array.copy() for name, array in CONTENTS.items()})
    assert draw.calls == 1
    assert [p.stat().st_mtime_ns for p in (path, path.with_suffix(".npz"))] == before


@pytest.mark.parametrize(
    "changed",
    [
        CONTENTS | {"y": np.array([1.0, 3.0, 2.0])},
        CONTENTS | {"y": CONTENTS["y"].astype(np.float32)},
        CONTENTS | {"more": np.array(0)},
        CONTENTS | {"title": np.array("another")},
    ],
    ids=["value", "type", "more", "text"],
)
def test_a_figure_is_drawn_again_when_its_arrays_change(
    path: Path, draw: Recorder, changed: Arrays
) -> None:
    style.keep(path, draw, changed)
    assert draw.calls == 2
    assert files.same_arrays(files.load_arrays(path.with_suffix(".npz")), changed)
    assert np.array_equal(image.imread(path), pixels(changed))
    style.keep(path, draw, CONTENTS)  # and where there are fewer than before
    assert draw.calls == 3


@pytest.mark.parametrize("name", ["figure.png", "figure.npz", "damaged"])
def test_a_figure_is_drawn_again_when_a_file_is_gone_or_damaged(
    path: Path, draw: Recorder, name: str
) -> None:
    stored = path.with_suffix(".npz")
    if name == "damaged":
        stored.write_bytes(stored.read_bytes()[:100])
    else:
        (path.parent / name).unlink()
    style.keep(path, draw, CONTENTS)
    assert draw.calls == 2
    assert files.same_arrays(files.load_arrays(stored), CONTENTS)
    assert np.array_equal(image.imread(path), pixels(CONTENTS))


def test_a_figure_that_failed_is_drawn_at_the_next_attempt(
    path: Path, draw: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the picture of old arrays would stay beside the new ones for ever."""
    changed = CONTENTS | {"y": np.array([1.0, 3.0, 2.0])}

    def failing(a: Arrays) -> Figure:
        raise RuntimeError("no fonts")

    style.keep(path, failing, changed)
    assert "no fonts" in capsys.readouterr().err
    assert not path.exists()
    style.keep(path, draw, changed)
    assert np.array_equal(image.imread(path), pixels(changed))


def test_a_large_picture_has_256_colours_and_looks_the_same(path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(6, 20_000))

    def draw(a: Arrays) -> Figure:
        figure, axes = style.new_axes(8, 6)
        axes.scatter(*a["noise"][:2], c=a["noise"][2], s=3, cmap="viridis")
        axes.scatter(4, 4, s=20, color=style.RED)  # a rare colour
        return figure

    style.keep(path, draw, {"noise": noise})
    buffer = io.BytesIO()
    with rc_context(style.STYLE):
        draw({"noise": noise}).savefig(buffer)
    plain, kept = image.imread(io.BytesIO(buffer.getvalue())), image.imread(path)
    assert len(buffer.getvalue()) > style.LARGE > path.stat().st_size
    assert plain.shape[:2] == kept.shape[:2]
    assert np.abs(plain[..., :3] - kept[..., :3]).max() < 0.1


def test_figures_come_as_pdf_too_with_their_fonts(
    path: Path, draw: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = path.stat().st_mtime_ns
    monkeypatch.setattr(style, "suffixes", [".png", ".pdf"])
    style.keep(path, draw, CONTENTS)
    assert path.stat().st_mtime_ns == drawn
    pdf = path.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # TrueType, embedded


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"n_models": 1}, "1 network, "),
        ({"n_models": 10, "n_models_pies": 10}, "10 networks, "),
        ({"n_models": 5, "n_models_pies": 10}, "5 networks (PIEs of 10 networks), "),
    ],
)
def test_a_title_says_of_how_many_networks(sizes: dict[str, int], said: str) -> None:
    arrays = {name: np.array(value) for name, value in (OF_CELL | sizes).items()}
    expected = f"SupCon, GMP pruning, sparsity 0.90\n{said}500 test images"
    assert style.title_of(arrays) == expected
