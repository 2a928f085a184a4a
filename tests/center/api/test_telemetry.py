"""The telemetry API on all stores: curves, counts, Flux and buckets."""

import csv
import io
import json
import time

import pytest

from center.errors import RefusedError
from center.pages.flux import pipeline
from center.stores.telemetry import Point
from tests.center_helpers import HOUR, SECOND, code

NOW = time.time_ns() // HOUR * HOUR - 2 * HOUR


def written(center, device, *fields, step=60 * SECOND):
    tags = {"clientId": device, "device": device}
    center.telemetry.write([Point("environment", tags, values, NOW + n * step) for n, values in enumerate(fields)])


def test_measurements_as_json(client, center, device):
    written(center, device, {"Temperature": 20.0, "CO2": 400}, {"Temperature": 22.0})
    path = f"/api/devices/{device}/measurements?start={NOW}&stop={NOW + HOUR}"
    answer = client.get(path).json
    assert answer["deviceId"] == device
    assert [(s["field"], s["sensor"], s["values"]) for s in answer["series"]] == [
        ("CO2", None, [400]), ("Temperature", None, [20.0, 22.0])
    ]  # fmt: skip
    mean = client.get(f"{path}&every=1h&fn=mean&field=Temperature").json
    assert [(s["field"], s["values"]) for s in mean["series"]] == [("Temperature", [21.0])]
    assert mean["series"][0]["times"] == [mean["stop"]]
    assert client.get(f"/api/devices/{device}/measurements/count").json == {"count": 2}
    assert client.get("/api/devices/nobody/measurements/count").json == {"count": 0}


def test_a_device_or_a_field_that_is_not_there_is_404_with_those_that_are(client, center, device):
    written(center, device, {"Temperature": 20.0, "CO2": 400})
    answer = client.get(f"/api/devices/{device}/measurements?field=Temprature,CO2&start={NOW}&stop={NOW + HOUR}")
    assert answer.status_code == 404
    assert answer.json["message"] == f"{device} has no field Temprature: it has CO2, Temperature"
    assert client.get(f"/api/devices/{device}/measurements?field=CO2&stop={NOW}").json["series"] == []  # not then
    center.registry.register("pi-empty", administrator=True)
    assert client.get("/api/devices/pi-empty/measurements?field=CO2").json["series"] == []  # not yet
    answer = client.get(f"/api/devices/nobody-{device}/measurements")
    assert answer.status_code == 404
    assert answer.json["message"].startswith(f"there is no device nobody-{device}: registered are ")
    assert "pi-empty" in answer.json["message"]


def test_measurements_as_csv(client, center, device):
    written(center, device, {"Temperature": 20.0, "CO2": 400}, {"Temperature": 22.0})
    path = f"/api/devices/{device}/measurements?start={NOW}&stop={NOW + HOUR}"
    for answer in (client.get(f"{path}&format=csv"), client.get(path, headers={"Accept": "text/csv"})):
        assert answer.mimetype == "text/csv"
        assert device in answer.headers["Content-Disposition"]
        rows = list(csv.reader(io.StringIO(answer.text)))
        assert rows[0] == ["time", "Temperature", "CO2"]
        assert [row[1:] for row in rows[1:]] == [["20.0", "400"], ["22.0", ""]]
    if center.settings.series_on == "victoria":
        return  # it keeps no texts
    written(center, device, {"Note": "=cmd()"})
    assert "'=cmd()" in client.get(f"{path}&format=csv").text  # what a device sends is no formula


@pytest.mark.parametrize(
    "bad",
    [
        *("start=yesterday", "every=5", "every=1h&fn=best", "start=now&stop=-1h", "every=1ns", "every=0s"),
        *("start=-9999y", "start=0001-01-01T00:00:00Z", "stop=9999-12-31T00:00:00Z", "stop=9999999999999999999"),
        *("every=9999y", "every=99999999d"),
    ],
)
def test_a_query_that_makes_no_sense_says_why(client, bad):
    answer = client.get(f"/api/devices/pi-1/measurements?{bad}")
    assert code(answer) == (400, "invalid")
    assert bad != "every=5" or answer.get_json()["message"].startswith("'5' is not a duration: write 10s")


@pytest.mark.parametrize("what", ["offset", "limit"])
@pytest.mark.parametrize("number", ["9999999999", "9" * 30, "-1", "1.5", "٣"])
def test_a_number_that_nothing_can_count_to_says_so(client, what, number):
    assert code(client.get(f"/api/devices?{what}={number}")) == (400, "invalid")


@pytest.mark.parametrize("path", ["/api/devices", "/api/devices/pi-1/measurements"])
@pytest.mark.parametrize("body", ["[" * 200_000, b"\xff", "{", '"text"', '{"deviceId": 1}'])
def test_a_body_that_is_no_json_object_says_so(client, path, body):
    assert code(client.post(path, data=body)) == (400, "invalid")


def test_sums_beyond_what_a_number_holds_are_null(client, center, device):
    """As JSON has no infinity; and integers near 2⁶³ must not end in an error for the whole query."""
    if center.settings.series_on == "victoria":
        with pytest.raises(RefusedError, match="huge: VictoriaMetrics keeps no value beyond"):
            written(center, device, {"huge": 1e308})
        return
    written(center, device, {"huge": 1e308, "large": 2**63 - 1}, {"huge": 1e308, "large": 2**63 - 1})
    path = f"/api/devices/{device}/measurements?start={NOW - 8 * HOUR}&stop={NOW + HOUR}&every=1h&fn="
    answer = client.get(f"{path}mean")
    values = {
        series["field"]: series["values"] for series in json.loads(answer.text, parse_constant=pytest.fail)["series"]
    }
    assert values["huge"] == [None]
    if center.settings.embedded:  # InfluxDB's own sums of integers run over
        assert values["large"] == [pytest.approx(2**63)]
    assert client.get(f"{path}sum").status_code == 200


def test_raw_flux_runs_on_influxdb_and_is_said_to_be_missing_elsewhere(client, center):
    query = {"query": f'from(bucket: "{center.telemetry.bucket}") |> range(start: -1m)'}
    answer = client.post("/api/devices/pi-1/measurements", json=query)
    if center.settings.series_on != "influxdb":
        assert code(answer) == (501, "not implemented")
    else:
        assert (answer.status_code, answer.mimetype) == (200, "text/csv")
        assert code(client.post("/api/devices/pi-1/measurements", json={"query": "from("})) == (400, "invalid")
    assert code(client.post("/api/devices/pi-1/measurements", json={})) == (400, "invalid")


def test_the_flux_that_is_shown_is_the_query_that_runs(client, center, device):
    if center.settings.series_on != "influxdb":
        pytest.skip("needs InfluxDB: no other store knows Flux")
    from center.stores.telemetry import SeriesQuery

    odd = device + '"$${x}\\y'
    center.telemetry.write([Point("environment", {"device": odd}, {"Temperature": 20.0}, NOW)])
    for query in (
        SeriesQuery(odd, NOW, NOW + HOUR, ("Temperature",), 90 * SECOND),
        SeriesQuery(odd, NOW, NOW + HOUR, ("Temperature", 'o"d\n$')),
    ):
        assert "20" in center.telemetry.raw_flux(pipeline(query, center.telemetry.bucket))


def test_the_buckets(client, center):
    roles = {bucket["name"]: bucket["role"] for bucket in client.get("/api/buckets").json}
    assert roles[center.telemetry.bucket] == "telemetry"
