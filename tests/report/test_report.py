"""The report, made from files alone and opened in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from common import paths
from common.data import arrays
from common.experiments import claims, comparison
from common.figures import report
from common.paths import Cell

CELLS = (Cell("supervised", "GMP", 0.9), Cell("SupCon", "GMP", 0.9), Cell("SupCon", "global", 0.5))
HOSTILE = '<script>document.title = "broken in"</script>'
N, CLASSES = 40, ("cat", "dog", HOSTILE)


def store_pies(pies: Path, cell: Cell, seed: int, n_images: int = N) -> np.ndarray:
    """A made-up cell of ten networks on images of 8x8 pixels; returns which images are PIEs."""
    rng = np.random.default_rng(seed)
    dense, pruned = rng.multinomial(10, np.ones(3) / 3, size=(2, n_images))
    is_pie = dense.argmax(axis=1) != pruned.argmax(axis=1)
    contents = {
        "learner": np.array(cell.learner),
        "pruning_method": np.array(cell.pruning_method),
        "sparsity": np.array(paths.format_sparsity(cell.sparsity)),
        "n_models": np.array(10),
        "n_examples": np.array(n_images),
        "ids": np.arange(10),
        "label": np.arange(n_images) % 3,
        "is_pie": is_pie,
        "modal_dense": dense.argmax(axis=1),
        "modal_pruned": pruned.argmax(axis=1),
        "votes_dense": dense,
        "votes_pruned": pruned,
        "vote_distance": rng.random(n_images),
        "classes": np.array(CLASSES),
        "pie_images": rng.integers(256, size=(is_pie.sum(), 3, 8, 8), dtype=np.uint8),
    }
    arrays.save(paths.pies_distribution(pies, cell).with_suffix(".npz"), contents)
    return is_pie


@pytest.fixture(scope="module")
def pies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "pies" / "made up & small"
    for seed, cell in enumerate(CELLS):
        store_pies(folder, cell, seed)
    comparison.run(folder)
    claims.run(folder)
    recipe = {"SupCon GMP 0.90": {"epochs": 3, "torch": "2.x", "ids": [0, 1]}}
    paths.recipes(folder, "SupCon").write_text(json.dumps(recipe))
    report.write(folder)
    return folder


def test_the_page_needs_nothing_else(pies: Path) -> None:
    page = paths.report(pies).read_text()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r"url\(([^)]+)\)", page)
    assert sources
    assert all(source.startswith(("data:", "#", '" + sprite')) for source in sources)
    assert "http" not in re.sub(r"data:[^\"]+", "", page)


def test_class_names_are_escaped(pies: Path) -> None:
    page = paths.report(pies).read_text()
    assert HOSTILE not in page
    assert "made up &amp; small" in page
    scripts = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            scripts.extend([tag] * (tag == "script"))

    Scripts().feed(page)
    assert len(scripts) == 1


def test_the_gallery_holds_every_pie_of_every_cell(pies: Path) -> None:
    gallery = json.loads(re.search(r"const data = (.*);\n", paths.report(pies).read_text())[1])
    by_cell = {cell: set() for cell in CELLS}
    for number, tile, *_ in gallery["pies"]:
        learner, pruning, sparsity, n_models = gallery["cells"][number]
        assert n_models == 10
        index, label = gallery["images"][tile]
        assert label == index % 3
        by_cell[Cell(learner, pruning, float(sparsity))].add(index)
    for cell in CELLS:
        stored = arrays.load(paths.pies_distribution(pies, cell).with_suffix(".npz"))
        assert by_cell[cell] == set(np.flatnonzero(stored["is_pie"]).tolist())


def test_rebuilding_gives_the_same_page(pies: Path) -> None:
    before = paths.report(pies).read_bytes()
    assert report.write(pies) == paths.report(pies)
    assert paths.report(pies).read_bytes() == before


def test_an_empty_folder_gives_a_page_without_images(tmp_path: Path) -> None:
    page = report.write(tmp_path).read_text()
    assert "What pruning forgets" in page


def test_cells_of_other_images_are_left_out(tmp_path: Path) -> None:
    store_pies(tmp_path, CELLS[0], 0, n_images=N)
    newest = paths.pies_distribution(tmp_path, CELLS[1]).with_suffix(".npz")
    store_pies(tmp_path, CELLS[1], 1, n_images=N - 3)
    later = newest.stat().st_mtime + 10
    os.utime(newest, (later, later))
    gallery = json.loads(re.search(r"const data = (.*);\n", report.write(tmp_path).read_text())[1])
    assert [cell[0] for cell in gallery["cells"]] == [CELLS[1].learner]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no browser: Debian's packages chromium and chromium-driver are missing")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def cards(browser) -> list:
    return browser.find_elements("css selector", "#gallery li")


def choose(browser, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("name", name)).select_by_value(value)


def open_page(browser, pies: Path) -> None:
    browser.get(paths.report(pies).as_uri())


def test_the_browser_finds_no_fault_and_no_hostile_script(browser, pies: Path) -> None:
    open_page(browser, pies)
    assert browser.get_log("browser") == []
    assert browser.title == "What pruning forgets: made up & small"
    broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0


def test_the_gallery_filters(browser, pies: Path) -> None:
    open_page(browser, pies)
    n_all = len(cards(browser))
    choose(browser, "learner", "SupCon")
    choose(browser, "pruning", "global")
    found = cards(browser)
    stored = arrays.load(paths.pies_distribution(pies, CELLS[2]).with_suffix(".npz"))
    assert 0 < len(found) == stored["is_pie"].sum() < n_all
    assert {card.get_attribute("data-cell") for card in found} == {"SupCon global 0.50"}
    choose(browser, "true class", "dog")
    assert {card.get_attribute("data-label") for card in cards(browser)} == {"dog"}
    assert len(cards(browser)) == (stored["is_pie"] & (stored["label"] == 1)).sum()


@pytest.mark.parametrize(
    ("key", "falling"), [("distance", True), ("margin", True), ("index", False)]
)
def test_the_gallery_sorts(browser, pies: Path, key: str, falling: bool) -> None:
    open_page(browser, pies)
    choose(browser, "sort", key)
    values = [float(card.get_attribute(f"data-{key}")) for card in cards(browser)]
    assert len(set(values)) > 1
    assert values == sorted(values, reverse=key != "index")


def test_the_keyboard_is_enough(browser, pies: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pies)
    n_all = len(cards(browser))
    for _ in range(6):  # five links, then the first filter
        browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("name") == "learner"
    browser.switch_to.active_element.send_keys("supe")
    assert 0 < len(cards(browser)) < n_all


def test_a_phone_and_the_dark_show_the_whole_page(browser, pies: Path) -> None:
    open_page(browser, pies)
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert light != browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
