"""Alerts by whole processes: through a webhook and a mail server, across kills, with two replicas; and on the page."""

import contextlib
import email
import email.policy
import os
import re
import socket
import time

import pytest
import requests
from aiosmtpd.controller import Controller
from pytest_httpserver import HTTPServer

from center.alerts import kept, watch
from center.app import serve
from center.context import EXTENSION
from center.stores.telemetry import Point
from tests.center.test_serve import environment, running
from tests.center_helpers import embedded_settings, influx_settings
from tests.system.test_center_browser import FLAGS

SOON_S = 40  # a look comes every 15 s
TAKEN_OVER_S = 90


class People:
    """A webhook and a mail server: what arrived there, in order."""

    def __init__(self):
        self.hooks, self.mails = [], []

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append((mail["Subject"], mail.get_body(("plain", "html")).get_content().strip()))
        return "250 OK"

    @contextlib.contextmanager
    def listening(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        smtp, hook = Controller(self, hostname="127.0.0.1", port=port), HTTPServer()
        hook.expect_request("/hook").respond_with_handler(self._hook)
        smtp.start()
        with hook:
            yield {
                "Hook": f"json://user:SECRET@127.0.0.1:{hook.port}/hook",
                "Mail": f"mailto://127.0.0.1:{port}?from=center@example.org&to=me@example.org&mode=insecure",
            }
        smtp.stop()

    def _hook(self, request):
        from werkzeug import Response

        self.hooks.append((request.json["title"], request.json["message"]))
        return Response("ok")


@pytest.fixture
def people():
    people = People()
    with people.listening() as people.addresses:
        yield people


def until(seconds, seen):
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.1)


class Api:
    """What a person and a device do over HTTP."""

    def __init__(self, url):
        self.url, self.session = url, requests.Session()

    def receivers(self, addresses):
        """Added on the page, whose form the session fills."""
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.session.get(f"{self.url}/alerts").text)[1]
        for name, address in addresses.items():
            form = {"csrf_token": token, "name": name, "url": address}
            self.session.post(f"{self.url}/alerts/receivers", data=form, timeout=20)
        page = self.session.get(f"{self.url}/alerts").text
        assert "SECRET" not in page
        return re.findall(r"/alerts/receivers/(\w+)/test", page)

    def frost(self, receivers):
        rule = {"name": "Frost", "what": "below", "field": "Temperature", "threshold": 2, "receivers": receivers}
        assert self.session.put(f"{self.url}/api/alerts/rules/frost", json=rule, timeout=20).status_code == 200

    def register(self):
        self.device = self.session.post(f"{self.url}/api/devices/attic", timeout=20).json()

    def point(self, celsius):
        device, line = self.device, f"environment,clientId=attic Temperature={celsius}"
        url = f"{device['influx_url']}/api/v2/write?org={device['influx_org']}&bucket={device['influx_bucket']}"
        headers = {"Authorization": f"Token {device['token']}"}
        assert requests.post(url, data=line, headers=headers, timeout=20).status_code == 204

    def history(self):
        return [
            (event["event"], *set(event["receivers"].values()))
            for event in self.session.get(f"{self.url}/api/alerts", timeout=20).json()["history"]
        ]


JUDGES = b"alerts are judged by this process"


def said_so_far(process):
    os.set_blocking(process.stderr.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        return os.read(process.stderr.fileno(), 100_000)
    return b""


def killed(process):
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_alert_goes_out_and_comes_back_across_a_kill(tmp_path, people):
    store, env = ("--embedded", "--data", str(tmp_path / "data")), environment(PYTHONWARNINGS="default")
    with running(tmp_path, *store, env=env) as (process, url):
        api = Api(url)
        api.register()
        api.frost(api.receivers(people.addresses))
        api.point(1.5)
        until(SOON_S, lambda: people.hooks and people.mails)
        until(SOON_S, lambda: api.history() == [("begins", "sent")])
        killed(process)
    with running(tmp_path, *store, "--port", url.rpartition(":")[2], env=env) as (process, _):
        api.point(1.0)
        said = []
        until(TAKEN_OVER_S, lambda: said.append(said_so_far(process)) or JUDGES in b"".join(said))
        looked = time.monotonic()  # the first look, at what was begun before and goes on
        until(SOON_S, lambda: time.monotonic() > looked + 2)
        api.point(7)
        until(SOON_S, lambda: len(people.hooks) > 1 and len(people.mails) > 1)
        until(SOON_S, lambda: api.history() == [("ends", "sent"), ("begins", "sent")])
        assert b"SECRET" not in b"".join([*said, said_so_far(process)])
    assert [title for title, _ in people.hooks] == ["Frost", "Over: Frost"]
    assert [title for title, _ in people.mails] == ["Frost", "Over: Frost"]
    assert "attic: 1.5 °C" in people.mails[0][1]
    assert people.hooks[0][1] == "Temperature below 2 °C\nattic: 1.5 °C"
    assert people.hooks[1][1].startswith("Temperature below 2 °C\nattic: 7 °C, after ")


@pytest.mark.slow
@pytest.mark.influxdb
@pytest.mark.timeout(300)
def test_of_two_replicas_one_tells_and_the_other_takes_over(tmp_path, people):
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(influx_settings()).influxdb
        env = environment(
            PYTHONWARNINGS="default", INFLUX_URL=names.url, INFLUX_TOKEN=names.token.reveal(), INFLUX_ORG=names.org,
            INFLUX_BUCKET=names.bucket, INFLUX_BUCKET_AUTH=names.bucket_auth,
        )  # fmt: skip
        replicas = [stack.enter_context(running(tmp_path, env=env)) for _ in range(2)]
        api = Api(replicas[0][1])
        api.register()
        api.frost(api.receivers(people.addresses))
        api.point(1.5)
        until(TAKEN_OVER_S, lambda: people.hooks and people.mails)
        until(SOON_S, lambda: api.history() == [("begins", "sent")])
        holds = [JUDGES in said_so_far(process) for process, _ in replicas]
        assert sorted(holds) == [False, True]
        other = Api(replicas[holds.index(False)][1])
        other.device = api.device
        killed(replicas[holds.index(True)][0])
        at = time.monotonic()
        other.point(7)
        until(TAKEN_OVER_S, lambda: len(people.hooks) > 1 and len(people.mails) > 1)
        print(f"taken over and told after {time.monotonic() - at:.0f} s")
        until(SOON_S, lambda: other.history() == [("ends", "sent"), ("begins", "sent")])
    assert [title for title, _ in people.hooks] == ["Frost", "Over: Frost"]
    assert [title for title, _ in people.mails] == ["Frost", "Over: Frost"]


@pytest.mark.chromium
def test_a_rule_from_an_example_fires_is_seen_and_ends(tmp_path, monkeypatch):
    from playwright.sync_api import expect, sync_playwright

    monkeypatch.setattr(watch, "EVERY_S", 0.2)
    monkeypatch.setattr(watch, "SHARE", 1)
    with serve(embedded_settings(tmp_path)) as running, sync_playwright() as playwright:
        center = running.app.extensions[EXTENSION]
        center.registry.register("greenhouse-3", administrator=True)

        def point(celsius):
            center.telemetry.write([Point("environment", {"device": "greenhouse-3"}, {"Temperature": celsius})])

        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{running.url}/alerts")
        page.get_by_role("link", name="Frost in the greenhouse").click()
        expect(page.get_by_label("Within minutes")).to_be_hidden()
        expect(page.get_by_label("Which one")).to_be_hidden()
        page.get_by_label("What").select_option("A device is silent")
        expect(page.get_by_label("Quantity")).to_be_hidden()
        page.get_by_label("What").select_option("A value is below")
        page.get_by_label("For minutes").fill("0")
        page.get_by_label("Devices").select_option("One device")
        page.get_by_label("Which one").fill("greenhouse-3")
        page.get_by_role("button", name="Keep rule").click()
        page.get_by_text("The rule Frost in the greenhouse is kept.").wait_for()
        point(1.5)
        until(SOON_S, lambda: kept.unseen(center.registry))
        page.goto(f"{running.url}/")
        expect(page.locator("li", has_text="Frost in the greenhouse: 1.5 °C")).to_be_visible()
        page.get_by_role("link", name="1 alert").click()
        page.get_by_role("button", name="Seen: Frost in the greenhouse").click()
        expect(page.locator("#firing")).to_be_visible()
        expect(page.locator("li .state", has_text="Seen")).to_be_visible()
        page.goto(f"{running.url}/")
        expect(page.get_by_text("no point was refused")).to_be_visible()
        point(7.0)
        until(SOON_S, lambda: not kept.alerts(center.registry))
        page.goto(f"{running.url}/alerts")
        expect(page.get_by_text("No alert.")).to_be_visible()
        expect(page.get_by_text("Over: Frost in the greenhouse")).to_be_visible()
        page.get_by_role("button", name="Delete Frost in the greenhouse").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_text("is deleted, and its alerts with it").wait_for()
        assert problems == []
        browser.close()
