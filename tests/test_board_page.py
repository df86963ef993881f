"""The page in a real browser: it sorts, fits, overlaps nowhere, calls nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import board_dicts
import pytest
from board_dicts import FORMULA, HOSTILE

from jaxbench.board.page import page_text

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not there")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
BOARDS = {
    "full": board_dicts.full,
    "single": board_dicts.single,
    "pentathlon": board_dicts.pentathlon,
}
# Texts of pictures whose boxes touch, and pictures that stick out of the page.
OVERLAPS = """
const clash = [];
for (const svg of document.querySelectorAll("svg")) {
  const boxes = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 4 && q.top < p.bottom - 4)
      clash.push(`${a} | ${b}`);
  }));
  for (const [words, box] of boxes)
    if (box.left < -1 || box.right > innerWidth + 1) clash.push(`outside: ${words}`);
}
return clash;
"""  # noqa: E501

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="chromium or chromedriver is not there"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, tmp_path: Path) -> Iterator[Callable[..., webdriver.Chrome]]:
    """Opens a board's page; afterwards: no error, no request, nothing injected."""

    def open_page(name: str, width: int = 1400) -> webdriver.Chrome:
        path = tmp_path / f"{name}.html"
        path.write_text(page_text(BOARDS[name]()), encoding="utf-8")
        browser.get("about:blank")
        browser.get_log("performance")
        browser.get_log("browser")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.get(path.as_uri())
        # Pictures are drawn in the next frame, and their marks dimmed in another.
        browser.execute_async_script(
            "const done = arguments[0];"
            "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))"
        )
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    urls = {
        e["params"]["request"]["url"]
        for e in events
        if e["method"] == "Network.requestWillBeSent"
    }
    # The browser's own new tab, from before the page, may still be loading.
    own = ("data:", "chrome:", "about:", tmp_path.as_uri())
    assert {url for url in urls if not url.startswith(own)} == set()
    assert browser.title != "owned"


def names(browser) -> list[str]:
    """What the reader sees down the first column of the table."""
    rows = browser.find_elements(By.CSS_SELECTOR, "table.rows tbody tr:not(.detail)")
    return [
        row.find_element(By.CSS_SELECTOR, "th").text.split("\n")[0]
        for row in rows
        if row.is_displayed()
    ]


def press(browser, words: str) -> None:
    found = browser.find_elements(By.CSS_SELECTOR, "button")
    next(b for b in found if b.text == words and b.is_displayed()).click()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("name", BOARDS)
def test_it_fits_and_no_words_overlap(opened, name, width):
    browser = opened(name, width)
    root = "document.documentElement"
    ends = browser.execute_script(f"return [{root}.scrollWidth, {root}.clientWidth]")
    assert ends[0] <= ends[1]
    assert browser.find_elements(By.CSS_SELECTOR, "svg .dot")
    assert browser.execute_script(OVERLAPS) == []


def test_question_answers_picture_table_come_in_this_order(opened):
    browser = opened("full", 390)
    wanted = ["h1", ".answers", "figure.main", "table.rows", ".figures", "details"]
    tops = [browser.find_element(By.CSS_SELECTOR, s).location["y"] for s in wanted]
    assert tops == sorted(tops)
    # On a phone the picture begins on the first screen.
    assert tops[2] < 844
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "gru and s4 lead (3 seeds)." in text and "nine seeds would say" in text
    assert not browser.find_element(By.CSS_SELECTOR, "details dl").is_displayed()


def test_the_table_sorts_searches_and_filters(opened):
    browser = opened("full")
    start = ["gru", "s4", "mamba", "copy-previous floor", "mlp", FORMULA]
    start += ["marginal floor", "snn", "kan"]
    assert names(browser) == start
    head = browser.find_element(By.CSS_SELECTOR, 'th[data-key="loss"]')
    assert head.get_attribute("aria-sort") == "ascending"
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    # What has no value stays last, either way.
    assert names(browser) == [*start[-2::-1], "kan"]

    box = browser.find_element(By.CSS_SELECTOR, "input[type=search]")
    box.send_keys("mam")
    assert names(browser) == ["mamba"]
    assert browser.find_element(By.TAG_NAME, "output").text == "1 of 7 rows"
    box.send_keys("zzz")
    assert browser.find_element(By.TAG_NAME, "output").text == "no row fits"
    box.send_keys(*[Keys.BACKSPACE] * 6)
    press(browser, "state spaces")
    assert names(browser) == ["s4"]
    faint = browser.find_elements(By.CSS_SELECTOR, "figure.main .mark.faint")
    assert len(faint) == 6

    press(browser, "speed")
    shown = browser.find_elements(By.CSS_SELECTOR, "table.rows thead th")
    keys = [th.get_attribute("data-key") for th in shown]
    assert "speed" in keys and "params" not in keys


def test_a_row_unfolds_and_says_why_it_failed(opened):
    browser = opened("full")
    row = browser.find_element(By.CSS_SELECTOR, "tr.bad")
    assert f"28 GiB of 24 {HOSTILE}" in row.text
    row.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    detail = browser.find_elements(By.CSS_SELECTOR, "tr.detail")[-1]
    assert detail.is_displayed() and "oom" in detail.text


def test_the_picture_follows_the_need_and_the_keyboard(opened):
    browser = opened("full")
    label = "figure.main svg"
    assert "loss" in browser.find_element(By.CSS_SELECTOR, label).accessible_name
    press(browser, "a frame, p99")
    svg = browser.find_element(By.CSS_SELECTOR, label)
    assert "p99" in svg.accessible_name
    svg.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    tip = browser.find_element(By.ID, "tip")
    assert tip.text.startswith("s4\na frame, p99, ms: 0.35")
    svg.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element.text == "s4"
    assert tip.get_attribute("hidden") is not None or tip.text.startswith("s4")


def test_holes_are_holes_and_boards_inside_open(opened):
    browser = opened("pentathlon")
    hole = browser.find_element(By.CSS_SELECTOR, "td.hole")
    assert (hole.text, hole.get_attribute("title")) == ("–", "no run")
    part = browser.find_element(By.CSS_SELECTOR, "details.part")
    assert not part.find_elements(By.TAG_NAME, "table")
    part.find_element(By.TAG_NAME, "summary").click()
    assert "every row has one seed" in part.text
    assert part.find_element(By.CSS_SELECTOR, "table.rows").is_displayed()


def test_dark_and_light_follow_the_reader(opened):
    browser, grounds = opened("full"), set()
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        grounds.add(
            browser.execute_script(
                "return getComputedStyle(document.body).backgroundColor"
            )
        )
    assert len(grounds) == 2
