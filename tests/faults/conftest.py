"""Places to put faults into, and the count of what they survived.

A test tells by a mark which fault it stands for: `fault(name, what, expected)`.
The run ends with one line of counts; with FAULT_KILLS=100 or more, faults.json tells what was
counted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import KILLS, Place
from running import ROOT, Study

NOT_HERE = {
    "F19": "only the newest state is kept; where it is damaged, the training begins anew (F13)",
    "F32": "file times say nothing: report/test_page.py",
    "F33, F35": "missing networks, replaced networks: experiments/test_reruns.py",
    "F37": "there are no loader workers: a data set is one tensor on the training device",
}
# Counted here, and nowhere else. The kills "with_a_state" came after the first epoch of a training.
COUNTS = {"files_lost": 0, "kills": 0, "kills_with_a_state": 0, "kills_bit_exact": 0}
FAULTS: dict[str, dict[str, dict[str, Any]]] = {}  # by name and by what was done


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, what, expected): the fault that a test puts in")


@pytest.fixture
def counts() -> dict[str, int]:
    return COUNTS


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty folder."""
    place = Place(tmp_path / "work")
    yield place
    _count_lost(place)


@pytest.fixture
def copy(study: Study, tmp_path: Path) -> Iterator[Place]:
    """A copy of the small study."""
    place = Place(Path(shutil.copytree(study.folder, tmp_path / "copy")))
    yield place
    _count_lost(place)


def _count_lost(place: Place) -> None:
    lost = place.lost()
    COUNTS["files_lost"] += len(lost)
    assert not lost, f"lost: {lost}"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """The networks that a command makes if nothing disturbs the command."""
    made: dict[tuple[str, ...], dict[str, bytes]] = {}

    def whole(*command: str, start: Path | None = None) -> dict[str, bytes]:
        if command not in made:
            place = Place(tmp_path_factory.mktemp("whole"))
            if start is not None:
                shutil.copytree(start, place.folder, dirs_exist_ok=True)
            place.finish(*command)
            made[command] = place.networks()
        return made[command]

    return whole


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A fault is survived if all its tests pass, from set-up to teardown."""
    report = (yield).get_result()
    for mark in item.iter_markers("fault"):
        name, what, expected = mark.args
        row = FAULTS.setdefault(name, {}).setdefault(
            what, {"expected": expected, "runs": 0, "survived": True}
        )
        row["survived"] &= report.passed
        row["runs"] += report.when == "call"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the line of counts, and what is behind it if that is wanted."""
    if not FAULTS:
        return
    survived = sum(all(row["survived"] for row in rows.values()) for rows in FAULTS.values())
    line = (
        f"faults {survived}/{len(FAULTS)} survived, files lost {COUNTS['files_lost']}, "
        f"kills {COUNTS['kills_bit_exact']}/{COUNTS['kills']} bit-exact"
    )
    terminalreporter.write_line(
        f"{line} ({COUNTS['kills_with_a_state']} of the kills when a state was there); "
        f"not here: {', '.join(NOT_HERE)}"
    )
    if KILLS >= 100:
        found = {"summary": line, "counts": COUNTS, "faults": FAULTS}
        found["not_here"] = NOT_HERE
        (ROOT / "faults.json").write_text(json.dumps(found, indent=1) + "\n")
