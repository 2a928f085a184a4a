"""In Debian's Chromium: a device from "Add a device" to its first chart, with a running agent; many devices at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from center.app import serve
from center.context import EXTENSION
from center.profiles import profiles
from tests.center_helpers import HASH, PASSWORD, embedded_settings, environment
from tests.system.test_center_browser import DRAWN, EVERYTHING, PHONE, chromium, watching  # noqa: F401 - a fixture

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with serve(embedded_settings(tmp_path_factory.mktemp("center"))) as running:
        running.app.extensions[EXTENSION].registry.set_password_hash(HASH)
        yield running


def logged_in(seen, path):
    page = seen.go(path)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    return page


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    return [found["id"] for found in Axe().run(page, options=EVERYTHING).response["violations"]]


def test_a_device_is_added_on_a_phone_by_the_command_that_is_shown_and_its_page_turns_into_its_first_chart(
    chromium,  # noqa: F811
    guarded,
    tmp_path,
):
    (tmp_path / "sudo").write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -m agent.cli "$@" --config agent.toml\n')
    (tmp_path / "sudo").chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path.cwd())}
    with watching(chromium, guarded, viewport=PHONE) as seen:
        page = logged_in(seen, "/add")
        page.get_by_label("Name", exact=True).fill("Gewächshaus 3")
        page.get_by_label("Group").fill("Greenhouses")
        page.get_by_label("Sensor").select_option("virtual")
        page.get_by_role("button", name="Add device").click()
        page.get_by_role("heading", name="Waiting for it …").wait_for()
        assert violations(page) == []
        with page.expect_download() as download:
            page.get_by_role("link", name="iot-agent.toml").click()
        assert download.value.suggested_filename == "iot-agent.toml"
        assert "# enrollment key: " in download.value.path().read_text()
        page.get_by_role("button", name="Copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        command = page.evaluate("navigator.clipboard.readText()")
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environ, check=True, timeout=60)
        agent = [sys.executable, "-m", "agent.cli", "run", "--config", "agent.toml", "--state-dir", "state"]
        with subprocess.Popen(agent, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as running:
            try:
                page.wait_for_url("**/devices/gewachshaus-3", timeout=120_000)
                page.get_by_role("heading", name="Gewächshaus 3").wait_for()
                page.wait_for_function(f"() => {DRAWN}", timeout=60_000)
            finally:
                running.send_signal(signal.SIGTERM)
        assert seen.noted == []
    registry = guarded.app.extensions[EXTENSION].registry
    assert profiles(registry)["gewachshaus-3"].group == "Greenhouses"
    (key,) = registry.enrollment_keys()
    assert key.used == 1


def test_devices_are_filtered_and_several_are_changed_at_once(chromium, guarded):  # noqa: F811
    center = guarded.app.extensions[EXTENSION]
    for n in range(6):
        center.registry.register(f"board-{n}", administrator=True)
    center.telemetry.write([environment(f"board-{n}", None, Temperature=20.0) for n in range(3)])
    with watching(chromium, guarded) as seen:
        page = logged_in(seen, "/devices")
        rows = page.locator("tbody tr")
        page.get_by_label("Part of a name or id").fill("board")
        page.keyboard.press("Enter")
        page.wait_for_url("**search=board**")
        page.get_by_label("State").select_option("Waiting for data")  # goes at once
        page.wait_for_url("**state=waiting**")
        assert rows.count() == 3
        assert not page.get_by_role("button", name="Set group").is_visible()
        for n in (3, 4):
            page.get_by_label(f"Choose board-{n}").check()
        assert page.evaluate("getComputedStyle(document.querySelector('[data-chosen]'), '::before').content").count(
            "counter"
        )
        assert violations(page) == []
        page.get_by_label("Group", exact=True).last.fill("Cellars")
        page.get_by_role("button", name="Set group").click()
        page.get_by_text("2 devices are in the group Cellars.").wait_for()
        page.get_by_label("Group", exact=True).first.select_option("Cellars")
        page.wait_for_url("**group=Cellars**")
        assert rows.count() == 2
        page.get_by_label("Choose board-3").check()
        page.get_by_role("button", name="Remove …").click()
        page.get_by_role("heading", name="Remove 1 device?").wait_for()
        assert violations(page) == []
        page.get_by_role("button", name="Remove 1").click()
        page.get_by_text("board-3 is removed.").wait_for()
        assert [d.id for d in center.registry.devices(search="board").devices] == [
            f"board-{n}" for n in (0, 1, 2, 4, 5)
        ]
        seen.go("/fleet")
        assert page.get_by_role("link", name="Waiting").get_attribute("href") == "/devices?state=waiting"
        seen.go("/enrollment-keys")
        center.registry.make_enrollment_key(note="Greenhouse")
        seen.go("/enrollment-keys")
        page.get_by_role("button", name="Revoke Greenhouse").click()
        page.get_by_role("heading", name="Revoke the key Greenhouse?").wait_for()
        page.get_by_role("button", name="Keep it").click()
        assert any(key.note == "Greenhouse" and not key.revoked for key in center.registry.enrollment_keys())
        page.get_by_role("button", name="Revoke Greenhouse").click()
        page.get_by_role("button", name="Revoke", exact=True).click()
        page.get_by_text("The key is revoked").wait_for()
        assert seen.noted == []
