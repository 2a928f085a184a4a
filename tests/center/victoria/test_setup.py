"""What `iot-center check` finds of a VictoriaMetrics."""

import time
from types import SimpleNamespace

import pytest
from werkzeug import Response

from center.settings import VictoriaSettings
from center.victoria.client import Victoria, retention_s
from center.victoria.setup import check
from center.victoria.telemetry import VictoriaTelemetry

GOOD = '-dedup.minScrapeInterval="1ms"\n-retentionPeriod="5y"\n-storageDataPath="/var/lib/victoria-metrics"\n'


@pytest.fixture
def findings(httpserver):
    """What is found, by whether it is well, of one with these flags (None: they cannot be seen)."""

    def found(flags, write=204, prefix="/select/0/prometheus"):
        one = {"status": "success", "data": {"result": [{"metric": {}, "value": [0, "1"]}]}}
        httpserver.expect_request(f"{prefix}/api/v1/query").respond_with_json(one)
        httpserver.expect_request("/insert/0/influx/api/v2/write").respond_with_response(Response("hm", write))
        seen = Response("", 401) if flags is None else Response(flags)
        httpserver.expect_request("/flags").respond_with_response(seen)
        settings = VictoriaSettings(
            url=httpserver.url_for("/select/0/prometheus"), write_url=httpserver.url_for("/insert/0/influx/")
        )
        told = list(check(VictoriaTelemetry(Victoria(settings), "b")))
        return [f.text for f in told if not f.remedy], [f"{f.text}: {f.remedy}" for f in told if f.remedy]

    return found


def test_a_cluster_is_read_and_written_by_its_prefixes(findings, httpserver):
    well, wrong = findings(GOOD)
    assert wrong == []
    assert well[0] == f"VictoriaMetrics answers at {httpserver.url_for('/select/0/prometheus')}"
    assert well[1].endswith("/insert/0/influx")
    assert well[2:] == ["a point that is sent again counts once", "it keeps points for 1825d"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ('-storageDataPath="x"\n', "counts twice: start VictoriaMetrics with -dedup.minScrapeInterval=1ms"),
        ('-dedup.minScrapeInterval="30s"\n', "of the points of 30s it keeps one: start"),
        (GOOD + '-influxSkipSingleField="true"\n', "run it without -influxSkipSingleField"),
        (GOOD + '-influxMeasurementFieldSeparator="."\n', "run it without -influxMeasurementFieldSeparator"),
    ],
)
def test_a_flag_that_makes_numbers_wrong_is_named_with_the_right_one(findings, flags, said):
    _, (wrong,) = findings(flags)
    assert said in wrong


def test_flags_that_cannot_be_seen_are_said_and_are_no_fault(findings):
    well, wrong = findings(None)
    assert wrong == []
    assert "cannot be seen from here" in well[-1]
    assert "-dedup.minScrapeInterval=1ms" in well[-1]


def test_a_cluster_does_not_tell_for_how_long_it_keeps_points_and_that_is_said(findings):
    well, wrong = findings('-dedup.minScrapeInterval="1ms"\n-storageNode="storage-1:8401"\n')
    assert wrong == []
    assert "older ones it leaves out without a word" in well[-1]


def test_a_wrong_address_is_named_with_what_came_back(findings):
    _, wrong = findings(GOOD, write=404, prefix="/elsewhere")
    assert len(wrong) == 2
    assert "500" in wrong[0] or "404" in wrong[0]
    assert "/insert/0/influx/api/v2/write" in wrong[1]
    assert "404 hm" in wrong[1]


@pytest.mark.parametrize(
    ("period", "seconds"), [("1", 2_678_400), ("30d", 2_592_000), ("5y", 157_680_000), ("100h", 360_000), ("?", None)]
)
def test_retention_is_read_as_victoriametrics_writes_it(period, seconds):
    assert retention_s({"retentionPeriod": period}) == seconds


def test_without_the_flag_a_single_node_keeps_a_month_and_of_a_cluster_it_is_not_known():
    assert retention_s({"storageDataPath": "x"}) == 2_678_400
    assert retention_s({"search.latencyOffset": "0s"}) is None


def test_what_it_was_started_with_is_known_while_it_starts_or_is_away(httpserver, monkeypatch):
    """Else points older than its retention would be taken for five minutes, and lost."""
    victoria = Victoria(VictoriaSettings(url=httpserver.url_for("")))
    httpserver.expect_ordered_request("/flags").respond_with_data("starting", 503)
    httpserver.expect_ordered_request("/flags").respond_with_data(GOOD)
    httpserver.expect_ordered_request("/flags").respond_with_data("no backend", 502)
    assert victoria.flags() == {}
    assert retention_s(victoria.flags()) == 157_680_000
    later = time.monotonic() + 301.0
    monkeypatch.setattr("center.victoria.client.time", SimpleNamespace(monotonic=lambda: later))
    for _ in range(3):  # asked once: one that hangs would hold up each request
        assert retention_s(victoria.flags()) == 157_680_000
    httpserver.check_assertions()
    assert len(httpserver.log) == 3
