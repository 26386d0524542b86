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

from common import files, paths, study
from common.report import claims, comparison, page
from common.report.by_image import GALLERY
from common.study import Cell

CELLS = (Cell("supervised", "GMP", 0.9), Cell("SupCon", "GMP", 0.9), Cell("SupCon", "global", 0.5))
HOSTILE = '<script>document.title = "broken in"</script>'
N, CLASSES = 40, ("cat", "dog", HOSTILE)


def store_pies(pies: Path, cell: Cell, seed: int, n_images: int = N) -> None:
    """A made-up cell of ten networks on images of 8x8 pixels; the first cell as earlier versions
    stored it, without some columns of the gallery."""
    rng = np.random.default_rng(seed)
    dense, pruned = rng.multinomial(10, np.ones(3) / 3, size=(2, n_images))
    is_pie = dense.argmax(axis=1) != pruned.argmax(axis=1)
    contents = {
        "learner": np.array(cell.learner),
        "pruning_method": np.array(cell.pruning_method),
        "sparsity": np.array(study.format_sparsity(cell.sparsity)),
        "n_models": np.array(10),
        "n_examples": np.array(n_images),
        "ids": np.arange(10),
        "label": np.arange(n_images) % 3,
        "is_pie": is_pie,
        "modal_dense": dense.argmax(axis=1),
        "modal_pruned": pruned.argmax(axis=1),
        "votes_dense": dense,
        "votes_pruned": pruned,
        **{name: rng.random(n_images) for name in list(GALLERY)[: 1 if cell == CELLS[0] else None]},
        "classes": np.array(CLASSES),
        "pie_images": rng.integers(256, size=(is_pie.sum(), 3, 8, 8), dtype=np.uint8),
    }
    files.save_arrays(paths.pies_distribution(pies, cell).with_suffix(".npz"), contents)


def stored(pies: Path, cell: Cell) -> files.Arrays:
    return files.load_arrays(paths.pies_distribution(pies, cell).with_suffix(".npz"))


def gallery_of(page: Path) -> dict:
    return json.loads(re.search(r"const data = (.*);\n", page.read_text())[1])


@pytest.fixture(scope="module")
def pies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "pies" / "made up & small"
    for seed, cell in enumerate(CELLS):
        store_pies(folder, cell, seed)
    comparison.run(folder)
    claims.run(folder)
    recipe = {"SupCon GMP 0.90": {"epochs": 3, "torch": "2.x", "ids": [0, 1]}}
    paths.recipes(folder, "SupCon").write_text(json.dumps(recipe))
    page.write(folder)
    return folder


def test_the_page_needs_nothing_else(pies: Path) -> None:
    text = paths.report(pies).read_text()
    sources = re.findall(r'(?:src|href)="([^"]+)"', text) + re.findall(r"url\(([^)]+)\)", text)
    assert sources
    assert all(source.startswith(("data:", "#", '" + sprite')) for source in sources)
    assert "http" not in re.sub(r"data:[^\"]+", "", text)


def test_class_names_are_escaped(pies: Path) -> None:
    text = paths.report(pies).read_text()
    assert HOSTILE not in text
    assert "made up &amp; small" in text
    scripts = []

    class Scripts(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            scripts.extend([tag] * (tag == "script"))

    Scripts().feed(text)
    assert len(scripts) == 1


def test_the_gallery_holds_every_pie_of_every_cell(pies: Path) -> None:
    gallery = gallery_of(paths.report(pies))
    by_cell: dict[Cell, list[int]] = {cell: [] for cell in CELLS}
    for pie in gallery["pies"]:
        learner, pruning, sparsity, n_models = gallery["cells"][pie["cell"]]
        cell = Cell(learner, pruning, float(sparsity))
        index, label = gallery["images"][pie["tile"]]
        by_cell[cell].append(index)
        found = stored(pies, cell)
        assert (n_models, label) == (10, index % 3)
        for which in ("dense", "pruned"):
            votes = found[f"votes_{which}"][index].tolist()
            assert (pie[which], pie[f"{which}_votes"]) == (votes.index(max(votes)), max(votes))
        for name in GALLERY:
            expected = round(found[name][index], 3) if name in found else None
            assert pie[name] == expected
    for cell, indices in by_cell.items():
        assert indices == np.flatnonzero(stored(pies, cell)["is_pie"]).tolist()


def test_rebuilding_gives_the_same_page(pies: Path) -> None:
    before = paths.report(pies).read_bytes()
    assert page.write(pies) == paths.report(pies)
    assert paths.report(pies).read_bytes() == before


def test_a_folder_without_results_gives_a_page_without_images(tmp_path: Path) -> None:
    half_written = paths.temporary(paths.prediction_depth(tmp_path, CELLS[0], 5), "123")
    half_written.parent.mkdir(parents=True)
    half_written.write_bytes(b"torn")
    text = page.write(tmp_path).read_text()
    assert "What pruning forgets" in text


def test_cells_of_other_images_are_left_out(tmp_path: Path) -> None:
    store_pies(tmp_path, CELLS[0], 0, n_images=N)
    newest = paths.pies_distribution(tmp_path, CELLS[1]).with_suffix(".npz")
    store_pies(tmp_path, CELLS[1], 1, n_images=N - 3)
    later = newest.stat().st_mtime + 10
    os.utime(newest, (later, later))
    cells = gallery_of(page.write(tmp_path))["cells"]
    assert [cell[0] for cell in cells] == [CELLS[1].learner]


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
    shown = stored(pies, CELLS[2])
    assert 0 < len(found) == shown["is_pie"].sum() < n_all
    assert {card.get_attribute("data-cell") for card in found} == {"SupCon global 0.50"}
    choose(browser, "true class", "dog")
    assert {card.get_attribute("data-label") for card in cards(browser)} == {"dog"}
    assert len(cards(browser)) == (shown["is_pie"] & (shown["label"] == 1)).sum()


@pytest.mark.parametrize("column", [*GALLERY, "index"])
def test_the_gallery_sorts_by_each_column(browser, pies: Path, column: str) -> None:
    """The largest first, and those without a value last; the index rises."""
    open_page(browser, pies)
    choose(browser, "sort", column)
    while browser.find_element("id", "more").is_displayed():
        browser.find_element("id", "more").click()
    shown = [card.get_attribute(f"data-{column}") for card in cards(browser)]
    n_pies = {cell: int(stored(pies, cell)["is_pie"].sum()) for cell in CELLS}
    n_without = 0 if column in ("index", "vote_distance") else n_pies[CELLS[0]]
    assert len(shown) == sum(n_pies.values())
    values = [float(value) for value in shown if value is not None]
    assert len(set(values)) > 20
    assert values == sorted(values, reverse=column != "index")
    assert shown[len(values) :] == [None] * n_without


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
