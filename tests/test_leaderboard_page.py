"""The board's page in a real browser: it sorts, searches, unfolds, and calls nobody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boards
import pytest

from jaxbench.bench.leaderboard import write_leaderboard

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not there")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
# Speeds fall and latencies rise in this order.
LOSSES = {"gru": 1.10, "s4": 1.101, "mamba": 1.30, "mlp": 1.60, HOSTILE: 1.7}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="chromium or chromedriver is not there"
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with ties, failures, a search for rates, and two sections."""
    folder = tmp_path_factory.mktemp("board")
    suite = boards.write_suite(folder / "suite", LOSSES, range(6))
    lost = boards.result(
        "kan", None, status="oom", reason=f"28 GiB of 24 {HOSTILE}", log_tail=["tail!"]
    )
    boards.write(suite / "kan", lost)
    boards.write(suite / "lr", boards.result("gru", 1.2, rate=3e-3, purpose="sweep"))
    compat = boards.write_suite(
        folder / "compat", {"gru": 2.9, "s4": 2.8}, protocol="compat"
    )
    return write_leaderboard([suite, compat], folder / "out").html


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
    size(driver, 1400, 1000)
    yield driver
    driver.quit()


@pytest.fixture
def opened(page: Path, browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The page freshly loaded; afterwards: no error, no request, nothing injected."""
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    urls = {
        e["params"]["request"]["url"].split("#")[0]
        for e in events
        if e["method"] == "Network.requestWillBeSent"
    }
    # The browser's own new tab, from before the page, may still be loading.
    own = ("data:", "chrome:")
    assert {url for url in urls if not url.startswith(own)} <= {page.as_uri()}
    assert browser.title != "owned"


def size(browser: webdriver.Chrome, width: int, height: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def scheme(browser: webdriver.Chrome, name: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": name}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def clean_section(browser: webdriver.Chrome):
    """The section of the clean protocol, which comes first."""
    return browser.find_element(By.ID, "s1")


def names(browser: webdriver.Chrome) -> list[str]:
    """What the reader sees down the first table: rows and floors."""
    cells = clean_section(browser).find_elements(
        By.CSS_SELECTOR, "table.board > tbody > tr:not(.detail) > td.name"
    )
    found = [cell for cell in cells if cell.is_displayed()]
    buttons = [cell.find_elements(By.TAG_NAME, "button") for cell in found]
    return [
        (button[0] if button else cell)
        .text.split("\n")[0]
        .removesuffix(" floor")
        .strip()
        for cell, button in zip(found, buttons, strict=True)
    ]


def head(browser: webdriver.Chrome, key: str):
    return clean_section(browser).find_element(By.CSS_SELECTOR, f'th[data-key="{key}"]')


def press(browser: webdriver.Chrome, key: str) -> None:
    head(browser, key).find_element(By.TAG_NAME, "button").click()


def test_header_clicks_sort_both_ways(opened):
    start = ["gru", "s4", "mamba", "copy-previous", "mlp", HOSTILE, "marginal", "kan"]
    assert names(opened) == start
    assert head(opened, "rank").get_attribute("aria-sort") == "ascending"

    press(opened, "steps_per_s")
    rows = ["gru", "s4", "mamba", "mlp", HOSTILE]
    assert names(opened)[:5] == rows
    assert head(opened, "steps_per_s").get_attribute("aria-sort") == "descending"
    assert head(opened, "rank").get_attribute("aria-sort") is None
    press(opened, "steps_per_s")
    assert names(opened)[:5] == rows[::-1]
    # Rows without a value stay at the end either way.
    assert set(names(opened)[5:]) == {"copy-previous", "marginal", "kan"}

    press(opened, "best_median")
    press(opened, "best_median")
    assert names(opened) == [*start[-2::-1], "kan"]
    press(opened, "backbone")
    assert names(opened)[0] == HOSTILE


def test_the_keyboard_sorts_and_unfolds(opened):
    button = head(opened, "latency_step_p99_ms").find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    th = head(opened, "latency_step_p99_ms")
    assert th.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert th.get_attribute("aria-sort") == "descending"
    assert names(opened)[0] == HOSTILE

    row = clean_section(opened).find_element(By.CSS_SELECTOR, "tr.bad .name button")
    row.send_keys(Keys.ENTER)
    assert row.get_attribute("aria-expanded") == "true"
    detail = opened.find_element(By.ID, row.get_attribute("aria-controls"))
    assert detail.is_displayed()
    assert f"28 GiB of 24 {HOSTILE}" in detail.text and "tail!" in detail.text
    row.send_keys(Keys.ENTER)
    assert not detail.is_displayed()


def test_details_follow_their_row_and_show_every_seed(opened):
    section = clean_section(opened)
    row = section.find_element(By.CSS_SELECTOR, 'tr.row[data-row="1"]')
    row.find_element(By.CSS_SELECTOR, ".name button").click()
    press(opened, "steps_per_s")
    press(opened, "steps_per_s")
    follower = row.find_element(By.XPATH, "following-sibling::tr[1]")
    assert "detail" in follower.get_attribute("class") and follower.is_displayed()
    lines = follower.find_elements(By.XPATH, ".//table/tbody/tr")
    assert [line.text.split()[0] for line in lines] == list("012345")


def test_search_and_filters(opened):
    section = clean_section(opened)

    def control(name):
        return section.find_element(By.CSS_SELECTOR, f'[data-control="{name}"]')

    control("q").send_keys("m")
    assert {"mamba", "mlp", "marginal"} <= set(names(opened))
    control("q").send_keys("am")
    assert names(opened) == ["mamba"]
    assert control("count").text == "1 of 6 rows"
    control("q").send_keys("zzz")
    assert names(opened) == []
    assert "No row fits" in section.find_element(By.CSS_SELECTOR, ".none").text
    control("q").clear()
    control("q").send_keys(" ", Keys.BACKSPACE)
    assert len(names(opened)) == 8

    Select(control("family")).select_by_visible_text("selective state spaces")
    assert names(opened) == ["mamba"]
    Select(control("family")).select_by_index(0)
    Select(control("status")).select_by_visible_text("oom")
    assert names(opened) == ["kan"]


def test_views_change_the_columns(opened):
    assert not head(opened, "peak_bytes").is_displayed()
    buttons = clean_section(opened).find_elements(By.CSS_SELECTOR, ".views button")
    memory = next(button for button in buttons if button.text == "Memory")
    memory.click()
    assert head(opened, "peak_bytes").is_displayed()
    assert not head(opened, "steps_per_s").is_displayed()
    assert head(opened, "backbone").is_displayed()
    assert [b.text for b in buttons if b.get_attribute("aria-pressed") == "true"] == [
        "Memory"
    ]


def test_a_view_can_be_linked(opened, page):
    press(opened, "steps_per_s")
    press(opened, "steps_per_s")
    section = clean_section(opened)
    section.find_element(By.CSS_SELECTOR, '[data-control="q"]').send_keys("m")
    section.find_element(By.CSS_SELECTOR, "tr.row:not([hidden]) .name button").click()
    seen, address = names(opened), opened.current_url
    opened.get("about:blank")
    opened.get(address)
    assert names(opened) == seen
    details = clean_section(opened).find_elements(By.CSS_SELECTOR, "tr.detail")
    assert sum(detail.is_displayed() for detail in details) == 1
    # The other section has a state of its own.
    other = opened.find_element(By.ID, "s2")
    found = other.find_element(By.CSS_SELECTOR, '[data-control="q"]')
    assert found.get_attribute("value") == ""


@pytest.mark.parametrize(
    "broken", ["s1.sort=nope", "s1.open=x,,9&zz=1", "%%%", "s9.q=a"]
)
def test_broken_addresses_do_no_harm(opened, page, broken):
    opened.get("about:blank")
    opened.get(f"{page.as_uri()}#{broken}")
    assert len(names(opened)) == 8


def test_ties_are_held_by_a_bracket(opened):
    def tied():
        cells = clean_section(opened).find_elements(By.CSS_SELECTOR, "td.rank.tied")
        seen = [cell for cell in cells if cell.is_displayed()]
        return [cell.find_element(By.XPATH, "../td[2]//button").text for cell in seen]

    assert tied() == ["gru", "s4"]
    # Apart from each other there is nothing to hold.
    box = clean_section(opened).find_element(By.CSS_SELECTOR, '[data-control="q"]')
    box.send_keys("gru")
    assert tied() == []


def test_pointing_at_a_row_lights_its_marks(opened):
    row = clean_section(opened).find_element(By.CSS_SELECTOR, 'tr.row[data-row="2"]')
    webdriver.ActionChains(opened).move_to_element(row).perform()
    lit = clean_section(opened).find_elements(By.CSS_SELECTOR, ".mark.hot")
    assert len(lit) >= 6
    assert {mark.get_attribute("data-row") for mark in lit} == {"2"}


@pytest.mark.parametrize("width", [1400, 420])
def test_it_looks_whole_in_light_and_dark(opened, tmp_path, width):
    """Nothing is wider than the window, and the colours follow the reader's wish."""
    grounds = {}
    try:
        size(opened, width, 900)
        for name in ("light", "dark"):
            scheme(opened, name)
            opened.execute_script("dispatchEvent(new Event('resize'))")
            shot = tmp_path / f"{name}-{width}.png"
            assert opened.save_screenshot(str(shot)) and shot.stat().st_size > 20_000
            root = "document.documentElement"
            wide = opened.execute_script(
                f"return [{root}.scrollWidth, {root}.clientWidth]"
            )
            assert wide[0] <= wide[1]
            grounds[name] = opened.execute_script(
                "return getComputedStyle(document.body).backgroundColor"
            )
    finally:
        scheme(opened, "light")
        size(opened, 1400, 1000)
    assert grounds["light"] != grounds["dark"]


def test_the_header_stays_in_sight(opened):
    table = clean_section(opened).find_element(By.CSS_SELECTOR, "table.board")
    opened.execute_script(
        "scrollTo(0, arguments[0].getBoundingClientRect().top + scrollY + 150)", table
    )
    top, bar = opened.execute_script(
        "return [document.querySelector('#s1 th').getBoundingClientRect().top,"
        "document.querySelector('#s1 .bar').getBoundingClientRect().bottom]"
    )
    assert top == pytest.approx(bar, abs=1.5) and bar > 0
