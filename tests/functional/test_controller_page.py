"""The page in a real browser: it is live, shows what it is told as text, and asks nobody else."""

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from controller_support import VM, ControllerProcess, make_event, make_port, make_report
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)

HOSTILE = (
    "<img src=x onerror=document.title='owned'>",
    "</td><script>document.title='owned'</script>",
    '"><style>*{display:none}</style>',
    "javascript:alert(1)//{{7*7}}${7*7}",
)

Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={home}/profile"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    environment = os.environ | {"HOME": str(home)}
    driver = Browser(options, Service("/usr/bin/chromedriver", env=environment))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerProcess]:
    process = ControllerProcess(tmp_path)
    try:
        process.start()
        yield process
    finally:
        process.clean_up()


@pytest.fixture
def page(browser: Browser, controller: ControllerProcess) -> Iterator[Browser]:
    """The page, loaded and live; at the end: no error, and no request to anybody else."""
    browser.get("about:blank")
    take_logs(browser)
    browser.get(f"{controller.url}/")
    wait_for(browser, lambda: text_of(browser, "#link") == "live")
    yield browser
    browser.get("about:blank")
    messages, requests = take_logs(browser)
    assert messages == []
    foreign = [url for url in requests if not url.startswith((controller.url, "about:"))]
    assert foreign == []
    assert f"{controller.url}/static/js/main.js" in requests


def take_logs(browser: Browser) -> tuple[list[str], list[str]]:
    """What the console said (errors and violations of the policy too), and every URL asked for."""
    messages = [entry["message"] for entry in browser.get_log("browser")]
    requests = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"]["url"])
    return messages, requests


def wait_for(browser: Browser, condition: Callable[[], bool]) -> None:
    WebDriverWait(browser, 30, poll_frequency=0.1).until(lambda _: condition())


def text_of(browser: Browser, selector: str) -> str:
    text: str = browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent ?? ''", selector
    )
    return text


def texts_of(browser: Browser, selector: str) -> list[str]:
    texts: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)",
        selector,
    )
    return texts


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def post(controller: ControllerProcess, *events: dict[str, Any]) -> None:
    controller.call("POST", "/v1/events", list(events))


def beat(controller: ControllerProcess, *hosts: str) -> None:
    for host in hosts:
        value = {"version": "1", "epoch": 1, "migration_url": "http://x", "started": now()}
        controller.call("PUT", f"/v1/hosts/{host}", value)


def place_of(browser: Browser, uuid: str = VM) -> list[str]:
    """Name, host and state as the table shows them."""
    cells = texts_of(browser, f"#instances tr[data-uuid='{uuid}'] :is(.name, .state)")
    assert len(cells) in (0, 3)
    return cells


def test_an_event_appears_without_reload(page: Browser, controller: ControllerProcess) -> None:
    page.execute_script("window.sameDocument = true")
    assert text_of(page, "#timeline-note") == "No events yet."
    event = make_event(time=now())
    post(controller, event)
    wait_for(page, lambda: texts_of(page, "#timeline .name") == ["web-1"])
    assert texts_of(page, "#timeline .state") == ["started"]
    wait_for(page, lambda: place_of(page) == ["web-1", "alpha", "running"])
    page.find_element(By.CSS_SELECTOR, "#timeline summary").send_keys(Keys.ENTER)
    wait_for(page, lambda: event["id"] in text_of(page, "#timeline pre"))
    assert page.execute_script("return window.sameDocument") is True


def test_an_instance_moves_with_its_migration(
    page: Browser, controller: ControllerProcess
) -> None:
    post(controller, make_event(time=now()))
    wait_for(page, lambda: place_of(page) == ["web-1", "alpha", "running"])
    steps = [
        {"phase": phase, "time_ns": 1_767_225_600_000_000_000 + 250_000_000 * n, "detail": f"d{n}"}
        for n, phase in enumerate(("prepare", "precopy", "active", "done"))
    ]
    report = make_report(
        steps=steps,
        connections_moved=1234,
        connections_refused={"policy": 2},
        vcpu_pause_ms=184.2,
        network_gap_ms=190.0,
    )
    post(controller, make_event("migration.completed", "beta", data=report, time=now()))
    wait_for(page, lambda: place_of(page) == ["web-1", "beta", "running"])
    wait_for(page, lambda: texts_of(page, "#migrations summary .state") == ["done"])
    figures = text_of(page, "#migrations .figures")
    assert "1\u202f234 moved" in figures
    assert "2 refused" in figures
    assert "184 ms vCPU pause" in figures
    assert texts_of(page, "#migrations .steps .offset")[-1] == "+750.0 ms"
    assert texts_of(page, "#migrations .timeline .span") == [
        "prepare 250 ms", "precopy 250 ms", "active 250 ms",
        "vCPU pause 184 ms", "network gap 190 ms",
    ]  # fmt: skip
    # Opened by keyboard, it stays open when the other side's report changes it.
    page.find_element(By.CSS_SELECTOR, "#migrations summary").send_keys(Keys.ENTER)
    source = report | {"side": "source", "host": "alpha", "phase": "done", "final_delta_ms": 3.25}
    controller.call("PUT", "/v1/migrations/m-1", source)
    post(controller, make_event("resumed", "beta", time=now()))
    post(controller, make_event("migration.started", "alpha", data={}, time=now()))
    wait_for(page, lambda: "3.3 ms" in text_of(page, "#migrations dl"))
    assert page.execute_script("return document.querySelector('#migrations details').open")


def test_hostile_names_are_text(page: Browser, controller: ControllerProcess) -> None:
    events = [
        make_event(subject=f"vm-{n}", data={"name": name}, time=now())
        for n, name in enumerate(HOSTILE)
    ]
    spoof = make_event(subject="vm-9", data={"name": "\u202elive\u202c"}, time=now())
    post(controller, *events, spoof)
    for n, name in enumerate(HOSTILE):
        report = make_report(
            id=f"m{n}", instance_name=name, error=name, host="beta", phase="aborted"
        )
        controller.call("PUT", f"/v1/migrations/m{n}", report)
        port = make_port(uuid=f"p{n}", instance=f"vm-{n}", instance_name=name)
        controller.call("PUT", "/v1/hosts/alpha/ports", {"ports": [port]})
    post(controller, make_event("migration.failed", "beta", subject=None, data={}, time=now()))
    wait_for(page, lambda: len(texts_of(page, "#migrations details")) == len(HOSTILE))
    wait_for(page, lambda: len(texts_of(page, "#instances tr")) == len(HOSTILE) + 1)
    shown = texts_of(page, "#instances button.name")
    assert set(HOSTILE) <= set(shown)
    # What would reverse a name for the eye is made visible.
    assert "\ufffdlive\ufffd" in shown
    assert set(HOSTILE) <= set(texts_of(page, "#timeline .name"))
    assert set(HOSTILE) == set(texts_of(page, "#migrations .error"))
    assert (
        page.execute_script(
            "return document.querySelectorAll('img, main script, main style').length"
        )
        == 0
    )
    assert page.title == "vnet"


def test_hosts_and_what_needs_attention(page: Browser, controller: ControllerProcess) -> None:
    beat(controller, "alpha", "beta")
    post(controller, make_event(time=now()))
    wait_for(page, lambda: texts_of(page, "#hosts .state") == ["up", "up"])
    wait_for(page, lambda: text_of(page, "#attention-list") == "All quiet.")
    post(controller, make_event("crashed", time=now()))
    wait_for(page, lambda: text_of(page, "#attention-list") == "Crashed: web-1")
    level = page.find_element(By.ID, "attention").get_attribute("data-level")
    assert level == "bad"


def test_the_timeline_is_filtered_and_bounded(
    page: Browser, controller: ControllerProcess
) -> None:
    many = [make_event("resumed", subject=f"vm-{n % 7}", data={}) for n in range(700)]
    post(controller, make_event(time=now()), *many)
    wait_for(page, lambda: len(texts_of(page, "#timeline li")) == 300)
    # The filter finds what has long left the page.
    Select(page.find_element(By.ID, "filter-type")).select_by_value("vnet.instance.started")
    wait_for(page, lambda: texts_of(page, "#timeline .name") == ["web-1"])
    Select(page.find_element(By.ID, "filter-type")).select_by_value("")
    wait_for(page, lambda: len(texts_of(page, "#timeline li")) == 300)
    page.find_element(By.CSS_SELECTOR, f"tr[data-uuid='{VM}'] button").send_keys(Keys.ENTER)
    wait_for(page, lambda: len(texts_of(page, "#timeline li")) == 1)
    # A live event of another instance does not come in, one of this does.
    post(controller, make_event("stopped", subject="vm-1"), make_event("suspended", time=now()))
    wait_for(page, lambda: texts_of(page, "#timeline .state") == ["suspended", "started"])


def test_a_paused_timeline_holds_events_back(page: Browser, controller: ControllerProcess) -> None:
    button = page.find_element(By.ID, "pause")
    button.send_keys(Keys.SPACE)
    post(controller, make_event(time=now()), make_event("suspended", time=now()))
    wait_for(page, lambda: button.text == "Resume (2 new)")
    assert texts_of(page, "#timeline li") == []
    button.send_keys(Keys.SPACE)
    wait_for(page, lambda: texts_of(page, "#timeline .state") == ["suspended", "started"])


def test_everything_can_be_reached_by_keyboard(
    page: Browser, controller: ControllerProcess
) -> None:
    post(controller, make_event(time=now()))
    wait_for(page, lambda: place_of(page) != [])
    page.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(
            page.execute_script(
                "const e = document.activeElement; return e.id || e.className || e.tagName"
            )
        )
    for wanted in (
        "skip",
        "instances-find",
        "name",
        "pause",
        "filter-type",
        "filter-text",
        "SUMMARY",
    ):
        assert wanted in reached


@pytest.mark.parametrize("width", [360, 768, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_in_both_schemes(
    page: Browser, controller: ControllerProcess, width: int, scheme: str
) -> None:
    name = "a-name-without-any-place-to-break-" * 7
    post(controller, make_event(data={"name": name}, time=now()))
    report = make_report(instance_name=name, host="beta")
    controller.call("PUT", "/v1/migrations/m-1", report)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        wait_for(page, lambda: place_of(page) != [])
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        colour = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        lightness = int(re.findall(r"\d+", colour)[0])
        assert (lightness > 128) == (scheme == "light")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
