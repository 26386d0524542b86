"""README and docs/: every command is parsed by its script, the snippet of Python runs as it is
written, every link leads somewhere, and nothing in them belongs to one machine."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from running import PREFIXES, ROOT, SCRIPTS, Study

from common import options

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LEARNERS = {prefix: learner for learner, prefix in PREFIXES.items()}
PARSERS = {
    "training": options.training,
    "pruning_finetune": options.pruning_finetune,
    "pie_kmodels_detection": options.pie_detection,
    "prediction_depth": options.prediction_depth,
}
# Where links may lead to outside of the project.
HOSTS = {"arxiv.org"}
# Commands of a cluster, which pages may show; flags of theirs have hyphens or "=" in them.
OTHER_PROGRAMS = {"srun", "sbatch", "scontrol", "torchrun"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """The words that a page shows in backticks within its sentences."""
    return re.findall(r"`([^`]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """The places that a link may name in a page: its headings, as hosts of Markdown spell them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def parser(script: str) -> argparse.ArgumentParser:
    prefix, _, kind = script.removesuffix(".py").partition("_")
    return PARSERS[kind]("", LEARNERS[prefix])


@cache
def known_flags() -> set[str]:
    """Every flag of the scripts, of setup.sh and of the modules that a user may run."""
    of_scripts = {flag for script in SCRIPTS for flag in parser(script)._option_string_actions}
    others = [ROOT / "setup.sh", *(ROOT / "docs" / "slurm").glob("*.sh")]
    others += [ROOT / "tests" / "benchmarks" / f"{name}.py" for name in ("__main__", "limits")]
    return of_scripts | set(re.findall(r"--[a-z_]+", " ".join(map(Path.read_text, others))))


def commands(block: str, folder: Path) -> list[list[str]]:
    """The words of every command that a block of bash would run. It does run, loops and variables
    included, but where no command can be found, so that each is only written down."""
    # One write a command, at the end of the file: commands in the background run side by side.
    write = """command_not_found_handle() {
        printf -v words "%s\\x1f" "$@"
        printf "%s\\n" "$words" >&9
    }
    exec 9>>commands"""
    subprocess.run(["/bin/bash", "-n"], input=block, text=True, check=True)
    subprocess.run(
        ["/bin/bash", "-c", f"{write}\n{block}"], cwd=folder, env={"PATH": "/nowhere"}, timeout=20,
        capture_output=True, check=False,
    )  # fmt: skip
    lines = (folder / "commands").read_text().splitlines()
    return [line.removesuffix("\x1f").split("\x1f") for line in lines]


def check(command: list[str], folder: Path) -> None:
    """Parse a command as the program it runs would, without running it."""
    for i, word in enumerate(command):
        if word in SCRIPTS:
            with contextlib.chdir(folder):
                parser(word).parse_args(command[i + 1 :])
            return
    if command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2])
        named = command[3:]
    elif command[0] == "bash":
        assert (ROOT / command[1]).is_file()
        named = command[2:]
    else:
        assert command[0] in OTHER_PROGRAMS
        return
    assert {word for word in named if word.startswith("--")} <= known_flags()
    assert all((ROOT / word).exists() for word in named if word.startswith("tests/"))


@every_page
def test_every_command_is_one(page: Path, tmp_path: Path) -> None:
    (tmp_path / "PATH").mkdir()  # stands for a folder of the user's
    shown = [span for span in spans(page) if re.match(r"([A-Z_]+=\S+ )*(python|bash) \S", span)]
    for block in blocks(page, "bash") + shown:
        found = commands(block, tmp_path)
        assert found, block
        for command in found:
            check(command, tmp_path)


@every_page
def test_every_flag_exists(page: Path) -> None:
    named = {flag for span in spans(page) for flag in re.findall(r"(?<!\S)--[a-z_]+(?!\S)", span)}
    assert named <= known_flags()


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    """So that it is coloured, and tested: diffs in test_extending.py."""
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert set(fences[::2]) <= {"bash", "python", "diff", "text"}
    assert set(fences[1::2]) <= {""}
    assert page == README or not blocks(page, "python")


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            assert target.split("/")[2] in HOSTS
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file() and file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target
        if file.suffix == ".png":
            assert file.stat().st_size <= 300_000


@every_page
def test_no_page_belongs_to_one_machine(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"(?<![\w.~])/(?:home|root|tmp|mnt|opt|srv|usr|var|work)\b", text)
    assert set(re.findall(r"https?://([^/)\s]+)", text)) <= HOSTS
    outside_links = re.sub(r"\]\([^)]+\)", "", text)
    assert "../" not in outside_links


def test_every_page_and_picture_is_linked() -> None:
    """From the front page, or from a page that it links to."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)]+)\)", prose(page))
        if not target.startswith("https://")
    }
    assert {README, *PAGES[1:], *(ROOT / "figures").iterdir()} - {README} <= linked


def test_the_front_page_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150
    (snippet,) = blocks(README, "python")
    assert len(snippet.splitlines()) <= 15


def test_the_snippet_runs_as_it_is_written(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").symlink_to(study.folder / "models")
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((10, 300)) < 0.1, rng.integers(0, 10, (10, 300)), 3)
    pruned = dense.copy()
    pruned[:, :40] = 7  # all networks forget these
    np.save("dense.npy", dense)
    np.save("pruned.npy", pruned)
    names: dict[str, object] = {}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(blocks(README, "python")[0], names)
    assert np.shape(names["labels"]) == (4,)
    assert shown.getvalue() == "40 PIEs [40, 40], corrected 40 at K/2\n"
