"""Many devices: found by state, group, sensor, version and name, changed several at once, and seen as a fleet."""

from __future__ import annotations

import re
import threading
import time

import pytest

from center.pages import live
from center.pages.live import Remembered
from center.pages.roster import Entry, Wanted, natural
from center.pages.states import State
from center.profiles import Profile, keep_profile, keep_told, profiles
from center.stores.telemetry import Point
from center.times import now_ns
from tests.center_helpers import environment, text_of

HOUR = 3600 * 10**9


@pytest.fixture
def fleet(center):
    """Four boards: one live, one silent, two that wait."""
    boards = {
        "gh-2": ("Greenhouse 2", "Greenhouses", "bme280", "0.2.0"),
        "gh-10": ("Greenhouse 10", "Greenhouses", "sht4x", "0.2.0"),
        "cellar": ("", "House", "bme280", "0.10.0"),
        "attic": ("", "", "", ""),
    }
    for device_id, (name, group, kind, version) in boards.items():
        center.registry.register(device_id, administrator=True)
        keep_profile(center.registry, device_id, Profile(name, group, "notes"))
        if version:
            keep_told(center.registry, device_id, {"version": version, "sensors": [{"name": "bench", "kind": kind}]})
    center.telemetry.write([environment("gh-2", now_ns(), Temperature=20.0)])
    center.telemetry.write([environment("gh-10", now_ns() - HOUR, Temperature=21.0)])
    return center


def listed(client, query=""):
    """Ids in the order of the list."""
    return re.findall(r'name="id" value="([^"]+)"', client.get(f"/devices{query}").text)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["attic", "cellar", "gh-2", "gh-10"]),
        ("?search=GREENhouse", ["gh-2", "gh-10"]),
        ("?search=cel", ["cellar"]),
        ("?search=gh-1", ["gh-10"]),
        ("?state=live", ["gh-2"]),
        ("?state=silent", ["gh-10"]),
        ("?state=waiting", ["attic", "cellar"]),
        ("?group=House", ["cellar"]),
        ("?sensor=bme280", ["cellar", "gh-2"]),
        ("?version=0.2.0&sensor=sht4x", ["gh-10"]),
        ("?sort=seen", ["gh-2", "gh-10", "attic", "cellar"]),
        ("?sort=silence", ["attic", "cellar", "gh-10", "gh-2"]),
        ("?sort=version", ["attic", "gh-2", "gh-10", "cellar"]),
        ("?sort=group", ["attic", "gh-2", "gh-10", "cellar"]),
        ("?sort=nothing&group=%1b", []),
    ],
)
def test_the_list_is_narrowed_and_sorted(client, fleet, query, found):
    assert listed(client, query) == found


def test_the_list_says_how_many_of_all_are_found_and_offers_what_there_is(client, fleet):
    page = client.get("/devices?group=Greenhouses")
    assert "2 of 4 devices" in text_of(page)
    assert re.search(r"Greenhouse 2 gh-2 · Greenhouses Live", text_of(page))
    options = re.search(r'id="by-version".*?</select>', page.text, re.DOTALL)[0]
    assert re.findall(r'value="([^"]*)"', options) == ["", "0.2.0", "0.10.0"]
    assert "is all that is chosen above" in text_of(client.get("/devices?group=Greenhouses&search=attic"))


def test_a_filter_is_offered_where_it_leaves_something_out(client, fleet):
    def offered():
        return re.findall(r'<select [^>]*id="by-(\w+)"', client.get("/devices").text)

    assert offered() == ["state", "group", "sensor", "version"]
    fleet.registry.remove("gh-10")
    for device_id, group in (("gh-2", "Greenhouses"), ("cellar", ""), ("attic", "")):
        keep_profile(fleet.registry, device_id, Profile("", group))
    assert "group" in offered()  # one group, and devices that are in none
    for device_id in ("cellar", "attic"):
        keep_profile(fleet.registry, device_id, Profile("", "Greenhouses"))
    assert "group" not in offered()


def test_natural_order_and_a_filter_that_nobody_has():
    board = [Entry(f"b{n}", f"Board {n}", "", State("live", "Live"), 1, "1.2", (), 300.0, 300.0) for n in (10, 9, 100)]
    assert [entry.id for entry in Wanted(sort="version").choose(board)] == ["b9", "b10", "b100"]
    assert Wanted.of({"search": " x " * 99}).search == ("x  " * 22)[:64].strip()
    assert sorted(["a10", "9", "a9", "", "٣"], key=natural) == ["", "9", "a9", "a10", "٣"]


def test_the_group_and_the_interval_of_several_are_set_at_once_and_the_rest_of_their_profiles_stays(client, fleet):
    ids = {"id": ["cellar", "gh-2", "nobody"]}
    answer = client.post("/devices/several?sort=seen", data=ids | {"do": "group", "group": " Wet "})
    assert (answer.status_code, answer.location) == (302, "/devices?sort=seen")
    answer = client.post("/devices/several", data=ids | {"do": "interval", "interval": "5m"}, follow_redirects=True)
    assert "2 devices are asked to report every 5 min" in text_of(answer)
    known = profiles(fleet.registry)
    assert {(i, known[i].group, known[i].settings.interval, known[i].notes) for i in known} == {
        ("cellar", "Wet", 300, "notes"),
        ("gh-2", "Wet", 300, "notes"),
        ("gh-10", "Greenhouses", None, "notes"),
        ("attic", "", None, "notes"),
    }
    client.post("/devices/several", data={"id": "gh-2", "do": "interval", "interval": " 1.5 "})
    assert profiles(fleet.registry)["gh-2"].settings.interval == 1.5
    client.post("/devices/several", data={"id": "gh-2", "do": "interval", "interval": ""})
    assert profiles(fleet.registry)["gh-2"].settings.interval is None
    client.post("/devices/several?search=greenhouse", data={"all": "1", "do": "group", "group": "All"})
    assert {i for i, profile in profiles(fleet.registry).items() if profile.group == "All"} == {"gh-2", "gh-10"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"do": "group", "group": "x"}, "Choose 1 to 1000 devices first"),
        ({"id": "gh-2", "do": "interval", "interval": "soon"}, "Not set: settings.interval: 'soon': must be a number"),
        ({"id": "gh-2", "do": "interval", "interval": "1ms"}, "Not set: settings.interval"),
        ({"id": "gh-2", "do": "group", "group": "x" * 65}, "Not set: group: 65 characters"),
        ({"id": "gh-2"}, "Choose what to do"),
    ],
)
def test_what_cannot_be_set_is_said_and_nothing_changes(client, fleet, data, said):
    before = profiles(fleet.registry)
    assert said in text_of(client.post("/devices/several", data=data, follow_redirects=True))
    assert profiles(fleet.registry) == before


def test_several_are_removed_after_a_question_with_their_number_and_names(client, fleet):
    asked = client.post("/devices/several", data={"id": ["cellar", "gh-2"], "do": "remove"})
    assert "Remove 2 devices?" in text_of(asked)
    assert "Greenhouse 2 gh-2" in text_of(asked)
    assert fleet.registry.devices().total == 4
    sent = {"id": re.findall(r'name="id" value="([^"]+)"', asked.text), "do": "removed"}
    assert "2 devices are removed" in text_of(client.post("/devices/several", data=sent, follow_redirects=True))
    assert listed(client) == ["attic", "gh-10"]
    assert set(profiles(fleet.registry)) == {"attic", "gh-10"}
    keep_profile(fleet.registry, "cellar", Profile("Cellar"))  # as where the store failed before that was forgotten
    again = client.post("/devices/several", data=sent, follow_redirects=True)
    assert "removed already" in text_of(again)
    assert set(profiles(fleet.registry)) == {"attic", "gh-10"}


def test_devices_are_chosen_by_a_part_of_their_name_or_id(client, fleet):
    found = client.get("/devices.json?search=greenHOUSE%201").get_json()
    assert found == {"devices": [{"id": "gh-10", "name": "Greenhouse 10"}]}
    assert len(client.get("/devices.json").get_json()["devices"]) == 4
    for n in range(30):
        fleet.registry.register(f"a{n}-gh-2", administrator=True)
    for asked, shown in (("gh-2", "gh-2"), ("Greenhouse 10", "gh-10"), ("atti", "attic"), ("other", "other")):
        answer = client.get(f"/dashboards?device={asked}&range=7d&field=a&field=b&_external=1")
        assert answer.location == f"/dashboards/{shown}?range=7d&field=a&field=b&_external=1"
    assert client.get("/dashboards?device=two words", follow_redirects=True).status_code == 404


def test_a_device_is_called_by_its_name_wherever_it_is_named(client, fleet):
    for path in ("/", "/devices", "/devices/gh-2", "/dashboards/gh-2"):
        page = client.get(path)
        assert re.search(r"Greenhouse 2 (Live )?gh-2", text_of(page)), path
    for path in ("/devices/gh-2", "/dashboards/gh-2"):
        assert re.search(r"<title>(Dashboard of )?Greenhouse 2 ", client.get(path).text)


def test_the_fleet_page_counts_and_names_those_that_need_a_look_first(client, fleet):
    page = text_of(client.get("/fleet"))
    assert page.count("No agent has told its counters within a day") == 3
    assert "Each is synchronised" not in page

    def health(device, **fields):
        return Point("agent", {"clientId": device, "device": device}, fields, now_ns())

    fleet.telemetry.write(
        [
            health("gh-2", pending=900, oldest_age=3_700.0, rejected=2, dropped=0, clock_good=1, clock_error_s=0.01),
            health(
                "gh-10", pending=700, oldest_age=86_400.0, rejected=0, dropped=40, clock_good=0, clock_error_s=3600.0
            ),
            health("cellar", pending=5, oldest_age=59.9, rejected=0, dropped=0, clock_good=1, clock_error_s=0.75),
            health("stranger", pending=9000, oldest_age=1e6, clock_good=0, clock_error_s=9.0),
        ]
    )
    page = text_of(client.get("/fleet"))
    assert re.search(r"Devices 4 registered Live 1 heard .* Silent 1 nothing .* Waiting 2 no", page)
    assert "Versions of the agent 0.10.0 1 0.2.0 2 not told 1" in page
    assert (
        "Oldest backlog Greenhouse 10 gh-10 700 points, for 24 h Greenhouse 2 gh-2 900 points, for 62 min Refused"
        in page
    )
    assert "Refused and dropped Greenhouse 10 gh-10 0 refused, 40 dropped Greenhouse 2 gh-2 2 refused" in page
    assert "Greenhouse 10 gh-10 not synchronised ±3" in page
    assert "cellar ±0.75 s" in page
    assert "stranger" not in page


class Slow:
    """A telemetry that takes a second by the clock of the test."""

    def __init__(self, clock):
        self.clock, self.asked, self.newest = clock, [], {"a": 1, "b": 1}
        self.free = threading.Event()
        self.free.set()

    def last_seen(self, since_ns):
        self.asked.append(now_ns() - since_ns)
        assert self.free.wait(60)
        self.clock.now += self.clock.takes
        return dict(self.newest)


@pytest.mark.parametrize("takes", [1.0, 0.01])
def test_what_a_store_takes_long_to_tell_is_remembered_while_what_is_newer_is_read_beside_it(monkeypatch, takes):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    class Center:
        telemetry = None

    clock, center = Clock(), Center()
    clock.takes = takes
    center.telemetry = store = Slow(clock)
    monkeypatch.setattr(live, "time", clock)
    remembered = Remembered(lambda telemetry, since: telemetry.last_seen(since), live.LOOK_BACK_NS)
    assert remembered.look(center) == {"a": 1, "b": 1}
    store.newest = {"a": 2}
    if takes < live.QUICK_S:
        assert remembered.look(center) == {"a": 2}  # asked each time, for all
        return
    assert remembered.look(center) == {"a": 1, "b": 1}
    assert len(store.asked) == 1
    clock.now += live.AGAIN * takes + 1
    store.free.clear()
    assert remembered.look(center) == {"a": 1, "b": 1}  # what is known, at once
    store.free.set()
    until = time.monotonic() + 30
    while remembered.look(center) != {"a": 2, "b": 1}:  # once it was read beside
        assert time.monotonic() < until
    assert store.asked[1] == pytest.approx(HOUR, rel=0.01)
    clock.now += live.OLD_S + 1
    store.newest = {"a": 3}
    assert remembered.look(center) == {"a": 3, "b": 1}  # waited for
    clock.now += live.WHOLE_EVERY_S
    assert remembered.look(center) == {"a": 3}
