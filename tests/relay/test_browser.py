"""The page in a real headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.listener.proxy import Proxy
from tests.relay.servers import Receiver, Relay, Serve, wait_until
from tests.support.needs import program
from tests.support.postgres import execute

HOSTILE = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "a\u202egnp.exe",
    "line\nbreak\ttab \u009b31m red",
    "'; DROP TABLE x; --",
    "日本語 🐘 é",
    "x" * 63,
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = program("chromium")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
        "--lang=en",
    ):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, Service(program("chromedriver")))
    yield browser
    browser.quit()


@pytest.fixture
def serve(database: str) -> Iterator[Serve]:
    with Serve(database) as serve:
        yield serve


def rows(browser: Chrome) -> list[str]:
    """What the page lists, newest first: the objects of each change."""
    return list(
        browser.execute_script(
            "return [...document.querySelectorAll('li.change')].map((row) => row.querySelector('.objects, .reset').textContent)"
        )
    )


def line(browser: Chrome) -> str:
    return browser.find_element(By.ID, "line").text


def show(browser: Chrome, port: int, query: str = "") -> None:
    browser.get(f"http://localhost:{port}/{query}")
    wait_until(lambda: line(browser) == "live", "the page")


def test_a_table_made_in_postgresql_appears(browser: Chrome, serve: Serve, database: str) -> None:
    execute(database, "CREATE TABLE before ()")
    show(browser, serve.port)
    wait_until(lambda: rows(browser) == ["+ table public.before"], "the history")
    execute(database, "CREATE TABLE orders ()", "DROP TABLE before")
    wait_until(lambda: rows(browser) == ["− table public.before", "+ table public.orders", "+ table public.before"], "what came")
    assert browser.find_element(By.ID, "count").text == "3 changes"
    wait_until(lambda: "✓ Feed: healthy" in browser.find_element(By.ID, "states").text, "the health")
    browser.find_element(By.CSS_SELECTOR, "summary").click()
    wait_until(lambda: browser.find_elements(By.TAG_NAME, "pre"), "the details")
    assert '"tag": "DROP TABLE"' in browser.find_element(By.TAG_NAME, "pre").text


def test_hostile_names_are_text(browser: Chrome, serve: Serve, database: str) -> None:
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    execute(database, f"CREATE TABLE {quoted[0]} ()")
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # what was before is not ours
    show(browser, serve.port)
    execute(database, *(f"CREATE TABLE {name} ()" for name in quoted[1:]))
    wait_until(lambda: len(rows(browser)) == len(HOSTILE), "all of them")
    text = "\n".join(rows(browser))
    assert "<img src=x" in text
    assert "\\u{202e}gnp.exe" in text
    assert "\\u{9b}31m" in text
    assert "日本語 🐘 é" in text
    assert not set("\u202e\u009b") & set(text)
    assert browser.title == "Schema changes"
    assert browser.find_elements(By.CSS_SELECTOR, "li img, li script") == []
    # a script that the policy refused would be told here
    told = [entry["message"] for entry in browser.get_log("browser")]  # type: ignore[no-untyped-call]
    assert [message for message in told if "net::ERR" not in message] == []


def test_the_network_is_cut_and_comes_back(browser: Chrome, serve: Serve, database: str) -> None:
    with Proxy(serve.port) as proxy:
        show(browser, proxy.port)
        made = 0

        def more(number: int) -> None:
            nonlocal made
            execute(database, *(f"CREATE TABLE t{made + index} ()" for index in range(number)))
            made += number

        for _ in range(4):
            more(20)
            proxy.cut()
            more(5)
        proxy.target = 1  # nothing answers for a while
        proxy.cut()
        more(10)
        wait_until(lambda: line(browser) == "connecting again …", "the page's word for it")
        time.sleep(1.5)
        more(10)
        proxy.target = serve.port
        wait_until(lambda: len(rows(browser)) >= made, "all that was made")
        more(1)
        wait_until(lambda: f"+ table public.t{made - 1}" in rows(browser), "the last")
        assert rows(browser) == [f"+ table public.t{number}" for number in reversed(range(made))]
        assert line(browser) == "live"


def test_the_server_is_killed_and_comes_back(browser: Chrome, serve: Serve, database: str) -> None:
    show(browser, serve.port)
    execute(database, "CREATE TABLE a ()")
    wait_until(lambda: rows(browser), "the first")
    serve.kill()
    execute(database, "CREATE TABLE b ()")
    time.sleep(0.5)
    serve.start()
    wait_until(lambda: len(rows(browser)) == 2, "the second")
    execute(database, "CREATE TABLE c ()")
    wait_until(lambda: len(rows(browser)) == 3, "the third")
    assert rows(browser) == ["+ table public.c", "+ table public.b", "+ table public.a"]


def test_filters_are_in_the_url(browser: Chrome, serve: Serve, database: str) -> None:
    execute(database, "CREATE TABLE orders ()", "CREATE TABLE items ()", "CREATE ROLE other", "ALTER TABLE orders ADD q int")
    try:
        show(browser, serve.port, "?object=Orders&tag=alter+table")
        wait_until(lambda: rows(browser) == ["~ table public.orders"], "what passes")
        execute(database, "ALTER TABLE items ADD q int", "ALTER TABLE orders ADD r int")
        wait_until(lambda: len(rows(browser)) == 2, "what passes")
        assert "public.items" not in "".join(rows(browser))
        field = browser.find_element(By.NAME, "object")
        field.clear()
        field.send_keys("items")
        wait_until(lambda: "object=items" in browser.current_url, "the URL")
        wait_until(lambda: rows(browser) == ["~ table public.items"], "what passes")
        browser.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
        wait_until(lambda: len(rows(browser)) == 5, "all")
        assert "?" not in browser.current_url
        show(browser, serve.port, "?by=object")
        wait_until(lambda: len(browser.find_elements(By.TAG_NAME, "h3")) == 2, "a group for each object")
        show(browser, serve.port, "?day=1999-01-01")
        assert rows(browser) == []
    finally:
        execute(database, "DROP ROLE other")


def test_older_changes_are_a_button_away(browser: Chrome, serve: Serve, database: str) -> None:
    execute(database, *(f"CREATE TABLE t{number} ()" for number in range(620)))
    show(browser, serve.port)
    wait_until(lambda: len(rows(browser)) == 500, "the newest")
    browser.find_element(By.ID, "older").click()
    wait_until(lambda: len(rows(browser)) == 620, "the rest")
    assert rows(browser) == [f"+ table public.t{number}" for number in reversed(range(620))]
    assert not browser.find_element(By.ID, "older").is_displayed()


def test_a_token_is_asked_for_once(browser: Chrome, database: str) -> None:
    with Serve(database, env={"SCHEMA_CHANGES_TOKEN": "open sesame"}) as serve:
        browser.get(f"http://localhost:{serve.port}/")
        field = browser.find_element(By.NAME, "token")
        wait_until(field.is_displayed, "the question")
        field.send_keys("wrong", Keys.ENTER)
        wait_until(lambda: "not the token" in browser.find_element(By.ID, "refused").text, "the refusal")
        field.clear()
        field.send_keys("open sesame", Keys.ENTER)
        wait_until(lambda: line(browser) == "live", "the changes")
        assert not field.is_displayed()
        show(browser, serve.port)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Chrome, serve: Serve, database: str, tmp_path_factory: pytest.TempPathFactory, scheme: str
) -> None:
    execute(database, "CREATE TABLE orders ()", "ALTER TABLE orders ADD q int", "DROP TABLE orders")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        show(browser, serve.port)
        wait_until(lambda: len(rows(browser)) == 3, "the changes")
        browser.find_element(By.CSS_SELECTOR, "summary").click()
        browser.execute_script((axe_core(tmp_path_factory) / "axe.min.js").read_text())
        found = browser.execute_async_script("axe.run().then(arguments[0])")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        assert len(found["passes"]) > 15
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_keyboard_reaches_all(browser: Chrome, serve: Serve, database: str) -> None:
    execute(database, "CREATE TABLE orders ()")
    show(browser, serve.port)
    wait_until(lambda: rows(browser), "a change")
    reached = []
    for _ in range(20):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        focus = browser.switch_to.active_element
        reached.append(focus.get_attribute("name") or focus.tag_name)
        if focus.tag_name == "summary":
            focus.send_keys(Keys.ENTER)
            break
    assert reached[:4] == ["object", "user", "tag", "day"]
    assert {"by", "button", "summary"} <= set(reached)
    wait_until(lambda: browser.find_elements(By.TAG_NAME, "pre"), "the details")


def axe_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the npm package, installed once."""
    folder = tmp_path_factory.getbasetemp() / "axe"
    if not folder.exists():
        folder.mkdir()
        shutil.copy(Path(__file__).parent / "axe.package.json", folder / "package.json")
        subprocess.run(
            [program("npm"), "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True, timeout=120
        )
    return folder / "node_modules/axe-core"


def test_relays_and_what_exactly_changed_are_shown(browser: Chrome, database: str, receiver: Receiver, cursors: Path) -> None:
    execute(database, "CREATE TABLE orders ()")
    with (
        Relay("--to", f"hook={receiver.url}", "--cursors", cursors, database) as relay,
        Serve("--diff", "--relay", f"127.0.0.1:{relay.metrics}", database) as serve,
    ):
        show(browser, serve.port)
        execute(database, "ALTER TABLE orders ADD qty integer NOT NULL DEFAULT 0")
        wait_until(lambda: browser.find_elements(By.CLASS_NAME, "differences"), "the differences")
        assert "+ qty integer not null default 0" in browser.find_element(By.CLASS_NAME, "differences").text
        wait_until(receiver.taken, "the delivery")
        wait_until(lambda: "✓ Relay to hook: up to date" in browser.find_element(By.ID, "states").text, "the relay's state")
