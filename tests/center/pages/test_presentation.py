"""How values, times and courses look."""

from __future__ import annotations

import re

import pytest

from center.pages import presentation
from center.pages.states import judge
from center.stores.telemetry import DAY_NS
from center.tables import ordered
from drivers.base import QUANTITIES


def test_numbers_have_the_decimals_of_their_field():
    assert presentation.number(-3.456, "Temperature") == "\N{MINUS SIGN}3.46"
    assert presentation.number(1013.2, "Pressure") == "1\u202f013.20"
    assert presentation.number(412, "CO2") == "412"
    assert presentation.number(None) == "\N{EN DASH}"
    assert presentation.number(86_400) == "86\u202f400"
    assert presentation.number(0.5, "ratio") == "0.5"
    assert presentation.number("on", "mode") == "on"


def test_what_is_too_small_or_too_long_for_its_decimals_has_a_power_of_ten():
    assert presentation.number(2e-6, "Leak") == "2.000e\N{MINUS SIGN}06"
    assert presentation.number(0.0, "Leak") == "0"
    assert presentation.number(1e300, "Giant") == "1.000e300"
    assert presentation.number(0.001, "Temperature") == "0.00"


def test_a_number_without_a_unit_is_written_in_the_visitors_language_too():
    assert presentation.with_unit(1.321, "Leak") == '<span data-v="1.321" data-u="" data-d="3">1.321</span>'
    assert presentation.with_unit("on", "mode") == "on"


def test_every_quantity_of_the_table_is_shown_by_it():
    for field, quantity in QUANTITIES.items():
        shown = presentation.look(field)
        assert (shown.label, shown.unit) == (quantity.shown, quantity.unit)
        assert shown.low is None or quantity.low <= shown.low < shown.high <= quantity.high
    assert presentation.look("GasResistance_max").label == "Gas resistance maximum"
    assert presentation.number(48_633, "GasResistance") == "48\u202f633"
    assert presentation.look("Colour") == presentation.Look("Colour", "Colour", "", 3, "other", None, None)
    assert ordered(["Lon", "Zeal", "DewPoint", "Illuminance", "Temperature"]) == [
        "Temperature",
        "Illuminance",
        "DewPoint",
        "Zeal",
        "Lon",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (86_400, "1 day ago"),
        (-604_790, "in 7 days"),
    ],
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert presentation.ago(seconds) == said


def test_a_sparkline_breaks_at_a_gap_and_a_flat_course_stays_flat():
    small = presentation.sparkline([(0, 1e-6), (1, 2e-6)], "Leak", 0, 1)
    assert "M0.0 28.0L100.0 2.0" in small
    drawn = presentation.sparkline([(t, 20.0) for t in (0, 1, 2, 50, 51, 52)], "Temperature", 0, 60)
    line = re.search(r'class="line" d="([^"]+)"', drawn)[1]
    assert line.count("M") == 2
    assert {pair.split()[1] for pair in re.findall(r"[\d.]+ [\d.]+", line)} == {"15.0"}
    assert "no course yet" in presentation.sparkline([], "Temperature", 0, 60)


def test_a_device_is_waiting_then_live_then_silent():
    now = 1000 * DAY_NS
    assert judge(None, now, 300).name == "waiting"
    assert judge(now - 299 * 10**9, now, 300).name == "live"
    assert judge(now - 301 * 10**9, now, 300).name == "silent"
    assert judge(now - 31 * 86_400 * 10**9, now, 300).name == "waiting"  # as the first page and the alerts have it
    assert judge(now - 31 * 86_400 * 10**9, now, 1e9).name == "waiting"
    assert judge(now, now, 300, registered=False).name == "unregistered"


def test_one_point_is_one():
    assert [presentation.points(count) for count in (0, 1, 2)] == ["0 points", "1 point", "2 points"]
    assert presentation.health({"pending": 1}) == [("Waiting to be delivered", "1 point")]


def test_where_no_point_waits_none_is_the_oldest():
    assert presentation.health({"oldest_age": 0.0}) == []
    assert presentation.health({"oldest_age": 90.0}) == [("Oldest that waits", "1 min")]
