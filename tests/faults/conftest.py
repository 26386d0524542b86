"""A small study to put faults into, and the count of what it survived: faults.json (see rows)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import run
from places import CLR, DETECT, FINETUNE, SUP, TWO, Place


@pytest.fixture(scope="session")
def study_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks a cell: supervised dense and one-shot with their PIEs, and dense SupCon."""
    folder = tmp_path_factory.mktemp("faults") / "study"
    for command in ((*SUP, *TWO), (*FINETUNE, *TWO), DETECT, (*CLR, *TWO)):
        done = run(folder, command)
        assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="session", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The parent of all children imports torch before anything is timed."""
    assert run(tmp_path_factory.mktemp("first") / "work", ("sup_training.py", "--help")).code == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty folder."""
    place = Place(tmp_path / "work")
    yield place
    _check(place)


@pytest.fixture
def copy(study_of_two: Path, tmp_path: Path) -> Iterator[Place]:
    """A copy of the study."""
    shutil.copytree(study_of_two, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    yield place
    _check(place)


def _check(place: Place) -> None:
    lost = place.lost()
    COUNTS["files_lost"] += len(lost)
    assert not lost, f"lost: {lost}"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """The files that a command makes if nothing disturbs it."""
    made: dict[tuple[Any, ...], dict[str, bytes]] = {}

    def whole(*command: str, start: Path | None = None, threads: int = 1) -> dict[str, bytes]:
        if (command, threads) not in made:
            place = Place(tmp_path_factory.mktemp("whole") / "work", threads)
            if start is not None:
                shutil.copytree(start, place.folder)
            assert place.run(*command).code == 0
            made[command, threads] = place.files()
        return made[command, threads]

    return whole


# What the run found; the numbers of the summary are counted here, and nowhere else.
COUNTS: dict[str, Any] = {
    "files_lost": 0,
    "kills": 0,
    "kills_with_a_state": 0,  # that is, after the first epoch of a training had ended
    "kills_bit_exact": 0,
}
# by kind and name: what was done, how often, and whether it held
OUTCOMES: dict[str, dict[str, dict[str, Any]]] = {"faults": {}, "bad inputs": {}}


@pytest.fixture
def counts() -> dict[str, Any]:
    return COUNTS


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A row holds if its test passed from setup to teardown."""
    outcome = yield
    row = getattr(item, "callspec", None) and item.callspec.params.get("row")
    if row is None or not hasattr(row, "kind"):
        return
    report = outcome.get_result()
    of_name = OUTCOMES[row.kind].setdefault(row.name, {})
    known = of_name.setdefault(row.what, {"expected": row.expected, "runs": 0, "held": True})
    known["held"] &= not report.failed and not report.skipped
    known["runs"] += report.when == "call"


def _counted(kind: str) -> tuple[int, int]:
    rows = OUTCOMES[kind].values()
    return sum(all(done["held"] for done in row.values()) for row in rows), len(rows)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The line that says it all, and the file behind it, if it is wanted (see rows)."""
    if not any(OUTCOMES.values()) and not COUNTS["kills"]:
        return
    from rows import JSON, NOT_APPLICABLE

    survived, tried = _counted("faults")
    refused, given = _counted("bad inputs")
    line = (
        f"faults {survived}/{tried} survived, files lost {COUNTS['files_lost']}, "
        f"bad inputs {refused}/{given} refused, "
        f"kills {COUNTS['kills_bit_exact']}/{COUNTS['kills']} bit-exact"
    )
    done = [what for rows in OUTCOMES.values() for row in rows.values() for what in row.values()]
    runs = sum(what["runs"] for what in done)
    contents = {
        "summary": line,
        "faults": {"tried": tried, "survived": survived, "rows": OUTCOMES["faults"]},
        "files_lost": COUNTS["files_lost"],
        "bad_inputs": {"tried": given, "refused": refused, "rows": OUTCOMES["bad inputs"]},
        "kills": {
            "tried": COUNTS["kills"],
            "with_a_state": COUNTS["kills_with_a_state"],
            "bit_exact": COUNTS["kills_bit_exact"],
        },
        "runs": runs,
        "not_applicable": NOT_APPLICABLE,
    }
    if JSON:
        JSON.write_text(json.dumps(contents, indent=1) + "\n")
    terminalreporter.write_line(
        f"{line} ({COUNTS['kills_with_a_state']} of the kills when a state was there)\n"
        f"{runs} rows and variants; not applicable: {', '.join(NOT_APPLICABLE)}; "
        f"{JSON or 'FAULT_JSON=<path> writes them'}"
    )
