"""Querying, writing by hand, the virtual device and the buckets."""

from __future__ import annotations

import html
import re

import pytest

from center.pages.virtual import DAYS
from center.times import now_ns
from tests.center_helpers import points_of, text_of


def test_a_query_shows_its_flux_its_rows_and_its_csv(client, pi_7):
    answer = client.get("/query?device=pi-7&field=Temperature&range=24h&window=5m&fn=max")
    page = text_of(answer)
    assert "aggregateWindow(every: 5m, fn: max" in page
    assert 'r._field == "Temperature"' in page
    assert re.search(r"Time UTC Temperature °C 20\d\d-", page)
    assert re.search(r'<td class="right num" data-v="[-\d.]+" data-u="°C" data-d="2">', answer.text)  # for °F
    assert 'data-unit-of="°C"' in answer.text
    csv_url = html.unescape(re.search(r'href="([^"]+)" download', answer.text)[1])
    assert client.get(csv_url).text.startswith("time,Temperature (°C)")


def test_a_query_counts_without_a_unit(client, pi_7):
    asked = "/query?device=pi-7&field=Temperature&range=24h&window=1d&fn=count"
    page = client.get(asked).text
    assert "°C" not in page.partition("<main")[2].partition("</main>")[0]
    for table in (f"{asked}&format=csv", "/series.csv?device=pi-7&field=Temperature&every=3600&fn=count"):
        assert client.get(table).text.splitlines()[0] == "time,Temperature"
    every_point = client.get("/query?device=pi-7&field=Temperature&range=1h&window=none&fn=count&format=csv").text
    assert every_point.splitlines()[0] == "time,Temperature (°C)"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/devices?page=99999999999999999999", 200),
        ("/dashboards/pi-7/series.json?start=0&stop=9999999999999", 400),
        ("/dashboards/pi-7/series.json?range=1h&width=99999999999999999999", 200),
    ],
)
def test_a_number_that_nothing_can_count_to_is_no_error_of_the_center(client, pi_7, path, status):
    assert client.get(path).status_code == status


def test_a_query_that_cannot_be_says_why(client, pi_7):
    assert "No point in this range" in text_of(client.get("/query?device=nobody&range=1h"))
    assert "Use 1 to 64 letters" in text_of(client.get("/query?device=no/body"))
    assert "at most 50000 windows" in text_of(client.get("/query?device=pi-7&range=1y&window=10s"))


def test_raw_flux_is_run_where_there_is_influxdb(client, center, pi_7):
    flux = f'from(bucket: "{center.telemetry.bucket}") |> range(start: -2h) |> filter(fn: (r) => r._field == "CO2")'
    answer = client.post("/query/flux", data={"flux": f"{flux} |> count()"})
    if center.settings.embedded:
        assert answer.status_code == 400
        assert "InfluxDB" in text_of(answer)
        return
    assert "Table 1 1 rows" in text_of(answer)
    assert '<td class="nowrap">60</td>' in answer.text
    wrong = client.post("/query/flux", data={"flux": "from(bucket"})
    assert wrong.status_code == 400


def test_a_point_written_by_hand_is_there_in_the_types_of_the_data_model(client, center):
    data = {"device": "pi-7", "Temperature": "21", "CO2": "400", "time": "2026-01-02T03:04:05Z"}
    assert "1 point is stored" in text_of(client.post("/write", data=data, follow_redirects=True))
    points = points_of(center.telemetry, "pi-7")
    assert points == {1_767_323_045_000_000_000: {"Temperature": 21.0, "CO2": 400}}
    assert isinstance(points[1_767_323_045_000_000_000]["Temperature"], float)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"device": "pi-7"}, "Give at least one value"),
        ({"device": "pi-7", "Temperature": "130"}, "From -55 to 125 °C"),
        ({"device": "pi-7", "Temperature": "nan"}, "From -55 to 125 °C"),
        ({"device": "pi-7", "Temperature": "20", "time": "yesterday"}, "is not a time"),
        ({"device": "pi-7", "Temperature": "20", "time": "9999-12-31T00:00:00Z"}, "too far away"),
        ({"device": "p i", "Temperature": "20"}, "Use 1 to 64"),
        ({"lines": "environment,clientId=x"}, "unable to parse"),
        ({"lines": ""}, "Write at least one line"),
    ],
)
def test_what_cannot_be_written_says_what_would_be_right(client, center, data, said):
    answer = client.post("/write", data=data)
    assert answer.status_code == 400
    assert said in text_of(answer)
    assert center.telemetry.count("pi-7") == 0


def test_what_is_wrong_is_said_at_its_field(client):
    assert 'id="time-error"' in client.post("/write", data={"device": "pi-7", "CO2": "400", "time": "soon"}).text
    assert 'id="CO2-error"' in client.post("/write", data={"device": "pi-7", "CO2": "4" * 400}).text
    assert 'id="Temperature-error"' in client.post("/write", data={"device": "pi-7"}).text


def test_lines_written_by_hand_are_there(client, center):
    lines = "environment,device=pi-7 Temperature=1 1000000000\r\nenvironment,device=pi-7 Temperature=2 2000000000\r\n"
    assert "2 points are stored" in text_of(client.post("/write", data={"lines": lines}, follow_redirects=True))
    assert center.telemetry.count("pi-7") == 2


def test_missing_data_of_the_virtual_device_is_written_in_batches_and_once(client, center, monkeypatch):
    now = now_ns()
    monkeypatch.setattr("center.pages.virtual.now_ns", lambda: now)
    headers = {"Accept": "application/json"}
    states, start = [], 0
    while not states or not states[-1]["finished"]:
        states.append(client.post("/virtual/fill", data={"from": start}, headers=headers).get_json())
        start = states[-1]["next"]
    assert len(states) == DAYS
    assert [s["done"] for s in states] == [1440 * (i + 1) for i in range(DAYS)]
    assert center.telemetry.count("virtual_device") == DAYS * 1440
    assert center.registry.device("virtual_device") is not None
    again = client.post("/virtual/fill", data={"from": states[-2]["next"]}, headers=headers).get_json()
    assert again["written"] == 0
    assert "Nothing was missing" in text_of(client.post("/virtual/fill", follow_redirects=True))


def test_the_buckets_page_names_what_each_bucket_holds(client, center):
    assert f"{center.telemetry.bucket} Measurements keeps data for ever" in text_of(client.get("/buckets"))
