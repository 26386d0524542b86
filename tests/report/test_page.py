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
from common.report import (
    page,
    page_figures,
    page_gallery,
    page_recipes,
    plots,
    publish,
    rows,
    style,
)
from common.report.by_image import GALLERY
from common.report.summary import caution_of
from common.study import Cell

CELLS = (Cell("supervised", "GMP", 0.9), Cell("SupCon", "GMP", 0.9), Cell("SupCon", "global", 0.5))
RECIPE = {"torch": "2.x", "ids": [0, 1, 2, 7], "limit": None, "parent": "ab" * 16}
HOSTILE = '<script>document.title = "broken in"</script>'
PAPER = "https://arxiv.org/abs/2207.00200"
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
    data = json.loads(re.search(r"const data = (.*);\n", page.read_text())[1])
    data["pies"] = [dict(zip(data["fields"], pie, strict=True)) for pie in data["pies"]]
    return data


@pytest.fixture(scope="module")
def pies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "pies" / "made up & small"
    for seed, cell in enumerate(CELLS):
        store_pies(folder, cell, seed)
        found = stored(folder, cell)
        counts = {"n_pies": found["is_pie"].sum(), "n_pies_corrected": 3, "top1": 0.9}
        counts |= {"top1_lost": 0.05, "q_score_held_out_pies_minus_flips": -0.1}
        made = [
            rows.row(cell, metric, value, 10, N, interval=(value - 0.01, value + 0.01))
            for metric, value in counts.items()
        ]
        rows.store(folder, "pie_detection", {cell: made})
        files.write_csv(paths.pie_table(folder, cell), [("index",), (0,)])
        path = paths.pies_distribution(folder, cell, "vote_distance")
        shown = {key: found[key] for key in (*plots.HEADING, "is_pie")}
        distance = {"distance": found["vote_distance"]}
        style.keep(path, plots.vote_distances, shown | distance)
    for learner in study.LEARNERS:
        made = [cell for cell in CELLS if cell.learner == learner]
        recipes = {str(cell): cell._asdict() | RECIPE | {"epochs": len(made)} for cell in made}
        paths.recipes(folder, learner).write_text(json.dumps(recipes))
    publish.run(folder)
    return folder


def test_the_page_needs_nothing_else(pies: Path) -> None:
    text = paths.report(pies).read_text()
    shown = re.findall(r'src="([^"]+)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert len(shown) > 2
    assert all(source.startswith("data:") for source in shown)
    links = set(re.findall(r'href="([^"#]+)"', text))
    assert "comparison/PIEs_by_sparsity.png" in links
    assert links - {PAPER} == {link for link in links if (pies / link).exists()}
    assert "http" not in re.sub(r"data:[^\")]+", "", text).replace(PAPER, "")


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


def visible(text: str) -> str:
    """The words of a page, without its styles and scripts."""
    return re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]+>", "", text, flags=re.S))


def test_the_first_screen_answers_the_question(pies: Path) -> None:
    text = paths.report(pies).read_text().split("<h2", 1)[0]
    n_pies = [stored(pies, cell)["is_pie"].sum() for cell in CELLS]
    for learner, n in (("supervised", n_pies[0]), ("SupCon", n_pies[1])):
        answer = f"changes the vote of 10 {learner} networks on {n} of {N} test images."
        corrected = "fresh networks of the same kind would cause too, 3 remain"
        assert f"{answer} Without the changes that {corrected}" in visible(text)
    assert text.count('data-kind="by_sparsity"') == 1
    lines = files.read_csv(paths.claims(pies))
    tested = {line["name"] for line in lines if line["verdict"] != "not tested"}
    untested = {line["name"] for line in lines} - tested
    assert tested
    assert untested
    assert all(text.count(f"<strong>{name}</strong>") == 1 for name in tested)
    assert all(name in text.split("Not tested here: ")[1] for name in untested)
    assert "K2 (run *_training.py with --pruning_method GMP and later_GMP" in text


def test_every_figure_says_what_it_shows_and_of_how_many(pies: Path) -> None:
    text = paths.report(pies).read_text()
    found = paths.report_figures(pies)
    assert text.count("<figcaption><strong>") == len(found) == 7
    assert text.count("10 networks, 40 test images.</figcaption>") == len(found)
    assert page_figures.CAPTIONS.keys() == paths.REPORT_FIGURES.keys()


def test_figures_beyond_the_budget_are_shown_from_their_files(
    pies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(pies, tmp_path / "copy")
    first, _ = page_figures.grouped(copy)
    monkeypatch.setattr(page_figures, "INLINE_BYTES", len(first.source))
    sources = re.findall(r'<img src="([^"]+)"', page.write(copy).read_text())
    assert len(sources) == len(paths.report_figures(copy))
    linked = [source for source in sources if not source.startswith("data:")]
    assert len(linked) == len(sources) - 1
    assert all((copy / source).exists() for source in linked)


def test_counts_of_few_networks_say_what_their_intervals_cover(tmp_path: Path) -> None:
    store_pies(tmp_path, CELLS[1], 0)
    path = paths.pies_distribution(tmp_path, CELLS[1]).with_suffix(".npz")
    assert not caution_of(10)
    for n_models in (10, 9, 3):
        files.save_arrays(path, stored(tmp_path, CELLS[1]) | {"n_models": np.array(n_models)})
        text = page.write(tmp_path).read_text()
        assert [n for n in (9, 3) if caution_of(n) in text] == [n for n in (n_models,) if n < 10]


def test_a_page_of_any_size_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, which no format stores well: 7,000 PIEs of 10,000 images in each of eight cells."""
    n, n_pies, rng = 10_000, 7_000, np.random.default_rng(0)
    is_pie = np.arange(n) < n_pies
    found = {
        "is_pie": is_pie,
        "pie_images": rng.integers(256, size=(n_pies, 3, 32, 32), dtype=np.uint8),
        "label": np.arange(n) % 10,
        "classes": np.array(list("abcdefghij")),
        "n_models": np.array(30),
        "votes_dense": rng.multinomial(30, np.ones(10) / 10, size=n),
        "votes_pruned": rng.multinomial(30, np.ones(10) / 10, size=n),
        **{name: rng.random(n) for name in ("modal_dense", "modal_pruned", *GALLERY)},
    }
    cells = {
        Cell(learner, "GMP", sparsity): found | {"vote_distance": rng.random(n)}
        for learner in study.LEARNERS
        for sparsity in (0.3, 0.5, 0.7, 0.9)
    }
    made = page_gallery.lay_out(cells)
    assert len(made.sprite) <= page_gallery.SPRITE_BYTES
    assert len(json.dumps(made.data)) < 1.3 * page_gallery.DATA_BYTES
    by = "pie_probability" if "pie_probability" in found else "vote_distance"
    for number, (cell, n_shown) in enumerate(made.n_shown.items()):
        shown = [made.data["images"][p[1]][0] for p in made.data["pies"] if p[0] == number]
        most = np.argsort(-cells[cell][by][:n_pies], kind="stable")[:n_shown]
        assert 20 <= n_shown == len(shown)
        assert set(shown) == set(most.tolist())
    assert (
        page_figures.INLINE_BYTES + page_gallery.SPRITE_BYTES + page_gallery.DATA_BYTES <= 3_700_000
    )


def test_settings_are_told_once_and_by_cells_made_alike(pies: Path) -> None:
    told = page_recipes.of_cells(pies)
    assert told.common == [("torch", "2.x"), ("ids", "0-2, 7"), ("parent", "abababab…")]
    heads = [("supervised", "GMP 0.90"), ("SupCon", "GMP 0.90; global 0.50")]
    assert (told.heads, told.lines) == (heads, [("epochs", ["1", "2"])])


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


def choose(browser, form: str, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    field = browser.find_element("id", form).find_element("name", name)
    Select(field).select_by_value(value)


def open_page(browser, pies: Path) -> None:
    browser.get(paths.report(pies).as_uri())


def test_the_browser_finds_no_fault_and_no_hostile_script(browser, pies: Path) -> None:
    open_page(browser, pies)
    assert browser.get_log("browser") == []
    assert browser.title == "What pruning forgets: made up & small"
    broken = (
        "return [...document.images].filter(i => i.src && i.complete && !i.naturalWidth).length"
    )
    assert browser.execute_script(broken) == 0


def test_the_gallery_filters(browser, pies: Path) -> None:
    open_page(browser, pies)
    n_all = len(cards(browser))
    choose(browser, "filters", "learner", "SupCon")
    choose(browser, "filters", "pruning", "global")
    found = cards(browser)
    shown = stored(pies, CELLS[2])
    assert 0 < len(found) == shown["is_pie"].sum() < n_all
    assert {card.get_attribute("data-cell") for card in found} == {"SupCon global 0.50"}
    choose(browser, "filters", "true class", "dog")
    assert {card.get_attribute("data-label") for card in cards(browser)} == {"dog"}
    assert len(cards(browser)) == (shown["is_pie"] & (shown["label"] == 1)).sum()


@pytest.mark.parametrize("column", [*GALLERY, "index"])
def test_the_gallery_sorts_by_each_column(browser, pies: Path, column: str) -> None:
    """The largest first, and those without a value last; the index rises."""
    open_page(browser, pies)
    choose(browser, "filters", "sort", column)
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


def test_a_threshold_keeps_the_probable_pies(browser, pies: Path) -> None:
    """Those of which an earlier version stored no probability are shown without one only."""
    open_page(browser, pies)
    script = """
      const range = document.querySelector("[name=threshold]");
      range.value = arguments[0]; range.dispatchEvent(new Event("input", {bubbles: true}));
    """
    for threshold, cells in ((0, CELLS), (0.01, CELLS[1:]), (0.8, CELLS[1:])):
        browser.execute_script(script, threshold)
        found = [stored(pies, cell) for cell in cells]
        probability = [a.get("pie_probability", np.zeros(N))[a["is_pie"]].round(3) for a in found]
        expected = sum(int((p >= threshold).sum()) for p in probability)
        assert f" of {expected} PIEs" in browser.find_element("id", "filters").text


def tab_to(browser, selector: str) -> object:
    """The element that the selector names, reached by the keyboard alone."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(100):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        focused = browser.switch_to.active_element
        if browser.execute_script("return arguments[0].matches(arguments[1])", focused, selector):
            return focused
    raise AssertionError(f"100 tabs do not reach {selector}")


def test_the_keyboard_is_enough(browser, pies: Path) -> None:
    """For a claim, a figure and the next one, and the images."""
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pies)
    n_all = len(cards(browser))
    tab_to(browser, ".claim summary").send_keys(Keys.ENTER)
    assert browser.find_element("css selector", ".claim table").is_displayed()
    link = tab_to(browser, ".cell a.large")
    link.send_keys(Keys.ENTER)
    picture = browser.find_element("css selector", "#large img")
    assert picture.is_displayed()
    first = picture.get_attribute("src")
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    second = picture.get_attribute("src")
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert picture.get_attribute("src") == first != second
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not picture.is_displayed()
    assert browser.switch_to.active_element == link
    tab_to(browser, "#filters [name=learner]").send_keys("supe")
    assert 0 < len(cards(browser)) < n_all


def test_figures_are_chosen_by_cell_and_kind(browser, pies: Path) -> None:
    open_page(browser, pies)
    choose(browser, "figure-filters", "learner", "SupCon")
    choose(browser, "figure-filters", "pruning", "GMP")
    shown = [g for g in browser.find_elements("css selector", ".cell") if g.is_displayed()]
    assert [g.get_attribute("data-learner") for g in shown] == ["", "SupCon"]  # both, and this
    assert "3 figures" in browser.find_element("id", "figure-filters").text
    choose(browser, "figure-filters", "kind", "disagreement")
    shown = [f for f in browser.find_elements("css selector", "figure") if f.is_displayed()]
    assert [f.get_attribute("data-kind") for f in shown] == ["by_sparsity", "disagreement"]


def contrasts(browser) -> list[tuple[float, str]]:
    """Contrast of text and background (WCAG 2) of every element that holds text of its own."""
    return browser.execute_script("""
      const channels = colour => colour.match(/[\\d.]+/g).map(Number);
      const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = e => {
        const colour = getComputedStyle(e).backgroundColor;
        return channels(colour)[3] === 0 ? behind(e.parentElement) : colour;
      };
      return [...document.body.querySelectorAll("*:not(script, noscript, option)")]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .map(e => {
          const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
        });
    """)


def test_it_reads_on_a_phone_in_the_dark_and_in_print(browser, pies: Path) -> None:
    open_page(browser, pies)
    light = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert min(contrasts(browser))[0] >= 4.5
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    assert light != browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert min(contrasts(browser))[0] >= 4.5
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = 1")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **dark})
    assert light == browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    open_page(browser, pies)
    is_shut = "return document.querySelectorAll('details:not([open])').length"
    n_shut = browser.execute_script(is_shut)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(is_shut) == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(is_shut) == n_shut > 0
