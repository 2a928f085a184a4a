"""The page of alerts: rules, receivers, what is firing and what happened."""

import html
import re
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from agent.util.secret import Secret
from center.alerts import kept, sending
from center.alerts.kept import Key, Message, Receiver
from center.alerts.rules import State
from center.context import EXTENSION
from center.pages.alerts import EXAMPLES
from tests.center_helpers import PASSWORD, text_of

FROST = {"name": "Frost", "what": "below", "field": "Temperature", "threshold": "2", "scope": "all"}


def shown(page, name):
    found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', page.text)
    return found and html.unescape(found[1])


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_fills_the_form_and_is_kept_as_it_is(client, center, example):
    page = client.get(f"/alerts/rules/new?example={example}")
    rule = EXAMPLES[example]
    assert shown(page, "name") == rule.name
    assert float(shown(page, "threshold")) == rule.threshold
    sent = {f: getattr(rule, f) for f in rule.__dataclass_fields__ if f not in {"receivers", "enabled"}}
    assert client.post("/alerts/rules/new", data=sent).status_code == 302
    assert list(kept.rules(center.registry).values()) == [rule]


def test_a_rule_is_kept_changed_switched_copied_and_deleted(client, center):
    kept.keep_receiver(center.registry, "p", Receiver("Phone", Secret("ntfy://x"), "ntfy://…"))
    client.post("/alerts/rules/new", data={**FROST, "receivers": ["p"]})
    ((rule_id, rule),) = kept.rules(center.registry).items()
    assert (rule.threshold, rule.receivers, rule.enabled) == (2, ("p",), True)
    assert "Frost Temperature below 2 °C On all Phone" in text_of(client.get("/alerts"))
    client.post(f"/alerts/rules/{rule_id}/switch")
    client.post(f"/alerts/rules/{rule_id}", data={**FROST, "threshold": "1"})
    rule = kept.rules(center.registry)[rule_id]
    assert (rule.threshold, rule.receivers, rule.enabled) == (1, (), False)
    assert shown(client.get(f"/alerts/rules/new?copy={rule_id}"), "threshold") == "1.0"
    assert len(kept.rules(center.registry)) == 1
    client.post(f"/alerts/rules/{rule_id}/delete")
    assert kept.rules(center.registry) == {}
    assert client.post(f"/alerts/rules/{rule_id}/switch").status_code == 404
    assert client.get(f"/alerts/rules/{rule_id}").status_code == 404
    assert client.get(f"/alerts/rules/{rule_id}?example=frost").status_code == 404


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"threshold": "cold"}, "Not a valid float value"),
        ({"field": ""}, "Name what is measured"),
        ({"scope": "device"}, "Name the device"),
        ({"scope": "device", "of": "Attic 1"}, "There is no device with the id Attic 1"),
        ({"scope": "group", "of": "attics"}, "There is no device in a group attics"),
        ({"what": "silent", "threshold": "0"}, "one above 0"),
        ({"name": ""}, "Give the rule a name"),
        ({"receivers": ["nobody"]}, "valid choice"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_at_its_field_and_nothing_is_lost(client, center, wrong, words):
    answer = client.post("/alerts/rules/new", data=FROST | wrong)
    assert answer.status_code == 400
    if "receivers" not in wrong:
        assert words in text_of(answer)
    assert shown(answer, "name") == (FROST | wrong)["name"]
    assert kept.rules(center.registry) == {}


def test_an_address_is_never_shown_again_and_its_receiver_can_be_tried(client, center, monkeypatch):
    url = "json://user:PASSword1@10.0.0.7/SECRETpath"
    client.post("/alerts/receivers", data={"name": "Hook", "url": url})
    ((receiver_id, receiver),) = kept.receivers(center.registry).items()
    assert receiver.url.reveal() == url
    asked = []
    for why in ("nobody there", ""):
        monkeypatch.setattr(sending, "send", lambda url, *_, good, why=why: asked.append(url.reveal()) or why)
        client.post(f"/alerts/receivers/{receiver_id}/test")
        page = client.get("/alerts")
        assert ("The test did not reach Hook: nobody there" if why else "The test is sent to Hook.") in text_of(page)
        assert "json://10.0.0.7" in page.text
        assert "SECRET" not in page.text
        assert "PASSword1" not in page.text
    assert asked == [url, url]
    kept.keep_rule(center.registry, "r", {"name": "x", "what": "clock", "receivers": [receiver_id]})
    client.post(f"/alerts/receivers/{receiver_id}/delete")
    assert kept.receivers(center.registry) == {}
    assert kept.rules(center.registry)["r"].receivers == ()


def test_an_address_that_is_wrong_or_of_this_machine_is_refused_and_not_repeated(client, center):
    for url in ("syslog://", "nosuch://SECRET", "SECRET"):
        answer = client.post("/alerts/receivers", data={"name": "Hook", "url": url})
        assert answer.status_code == 400
        assert "SECRET" not in answer.text
    assert kept.receivers(center.registry) == {}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/SECRET", "For a webhook write jsons:// in the place of https://"),
        ("me@example.org", "no address of Apprise"),
    ],
)
def test_what_people_take_for_an_address_is_answered_with_what_is_one(client, url, words):
    answer = client.post("/alerts/receivers", data={"name": "Hook", "url": url})
    assert words in text_of(answer)
    assert "SECRET" not in answer.text


def test_a_second_receiver_of_a_name_is_refused_since_nobody_could_tell_them_apart(client, center):
    for path in ("first", "second"):
        answer = client.post("/alerts/receivers", data={"name": "Hook", "url": f"json://10.0.0.7/{path}"})
    assert "There is a receiver Hook already" in text_of(answer)
    assert len(kept.receivers(center.registry)) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, ""),
        ({"field": "temperature"}, "has measured temperature within a day, so it waits. Known are: CO2, Humidity"),
        ({"sensor": "bench"}, "has measured Temperature by a sensor bench within a day, so it waits."),
        ({"what": "silent"}, ""),
    ],
)
def test_a_rule_for_what_nothing_measures_is_kept_and_says_that_it_waits(client, center, pi_7, wrong, words):
    client.post("/alerts/rules/new", data=FROST | {"threshold": "5"} | wrong)
    text = text_of(client.get("/alerts"))
    assert words in text
    assert ("so it waits" in text) == bool(words)
    assert len(kept.rules(center.registry)) == 1


def fire(registry, device="attic", fired=1000):
    kept.keep_rule(registry, "r", {"name": "Frost", "what": "below", "field": "Temperature", "threshold": 2})
    key = Key(device, "bench (bme280)", "below Temperature")
    kept.keep_alerts(registry, "r", {key: State(900, 1.5, fired)}, [key.part])


def test_home_shows_what_fires_until_it_is_seen_and_again_when_it_begins_anew(client, center, pi_7):
    fire(center.registry)
    home = text_of(client.get("/"))
    assert "Alert attic Frost: bench 1.5 °C" in home
    assert "Silent" in home
    assert "Needs a look 1 alert Alert" in home  # what is silent is none
    page = client.get("/alerts")
    assert "attic , bench: 1.5 °C" in text_of(page)
    client.post("/alerts/rules/r/seen", data={"until": shown(page, "until")})
    assert "Frost" not in text_of(client.get("/"))
    assert "Seen Frost" in text_of(client.get("/alerts"))
    fire(center.registry, fired=1001)
    assert "Frost" in text_of(client.get("/"))


def test_an_alert_that_began_while_the_page_was_open_can_be_marked_as_seen(app, client, center):
    app.config["WTF_CSRF_ENABLED"] = True
    page, part = client.get("/alerts"), {"X-Part": "live", "Accept": "text/html"}
    fire(center.registry)
    came = client.get("/alerts", headers=part)
    assert "csrf" not in came.text
    assert client.get("/alerts", headers={**part, "If-None-Match": came.headers["ETag"]}).status_code == 304
    button = re.search(r'<button [^>]*form="seen"[^>]* aria-label="Seen: Frost"', came.text)[0]
    action, until = (re.search(rf' {name}="([^"]+)"', button)[1] for name in ("formaction", "value"))
    token = re.search(r'<form id="seen".*?name="csrf_token" value="([^"]+)"', page.text)[1]
    assert client.post(action, data={"csrf_token": token, "until": until}).status_code == 302
    assert kept.unseen(center.registry) == {}


def test_where_nothing_judges_rules_the_page_says_so(client, center):
    """As under `flask run`."""
    words = "This process does not judge rules: iot-center serve does."
    assert words not in text_of(client.get("/alerts"))
    fire(center.registry)
    assert words in text_of(client.get("/alerts"))
    center.loops.append(SimpleNamespace(name="judging alerts", problem=None))
    assert words not in text_of(client.get("/alerts"))


def test_what_happened_is_told_with_whom_it_did_not_reach(client, center):
    kept.keep_receiver(center.registry, "p", Receiver("Phone", Secret("ntfy://x"), "ntfy://…"))
    for number, how in enumerate(("sent", "", "no route", "given up: no route"), 1):
        kept.keep_event(
            center.registry, Message(number, 0, "r", "begins", f"Frost {number}", "attic: 1 °C", {"p": how})
        )
    text = text_of(client.get("/alerts"))
    assert "Phone: given up: no route Began" not in text  # the newest first
    assert text.index("Frost 4") < text.index("Phone: given up: no route") < text.index("Frost 3")
    assert text.index("Phone: no route; it is tried again") < text.index("Frost 2") < text.index("Phone: not sent yet")
    assert "Phone" not in text.partition("Frost 1")[2]


def test_who_is_no_administrator_changes_nothing_and_sees_no_receiver(guarded, app, center):
    kept.keep_receiver(center.registry, "p", Receiver("Phone", Secret("ntfy://x"), "ntfy://…"))
    fire(center.registry)
    for path in ("rules/new", "rules/r", "rules/r/seen", "rules/r/delete", "receivers", "receivers/p/test"):
        answer = guarded.post(f"/alerts/{path}", data=FROST)
        assert (answer.status_code, urlsplit(answer.location).path) == (302, "/login")
    assert list(kept.rules(center.registry)) == ["r"]
    guarded.post("/login", data={"password": PASSWORD})
    assert "Phone" in text_of(guarded.get("/alerts"))
    guarded.post("/logout")
    public = replace(center.settings, server=replace(center.settings.server, public_view=True))
    app.extensions[EXTENSION] = replace(center, settings=public)
    kept.keep_event(center.registry, Message(1, 0, "r", "begins", "Frost", "attic: 1 °C", {"p": "no route"}))
    page = guarded.get("/alerts")
    assert "Frost attic: 1 °C" in text_of(page)
    assert not re.search("Phone|ntfy|no route|<form[^>]*alerts", page.text)
    app.extensions[EXTENSION] = center
    guarded.post("/login", data={"password": PASSWORD})
    app.config["WTF_CSRF_ENABLED"] = True
    assert guarded.post("/alerts/rules/r/delete").status_code == 400
    assert list(kept.rules(center.registry)) == ["r"]
