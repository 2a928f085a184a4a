"""What InfluxDB answers where something was remade under a running center. The answers are those of a real 2.8.0."""

import json
import logging
from types import SimpleNamespace

import pytest
from pytest_httpserver import HTTPServer
from werkzeug.wrappers import Response

from agent.util.secret import Secret
from center.app import create_app
from center.influx.client import Influx
from center.influx.registry import Issued
from center.influx.setup import devices
from center.settings import InfluxSettings, ServerSettings, Settings
from center.stores.registry import Device, DevicePage
from tests.center_helpers import code, stores
from tests.servers import InfluxServer

ORG_GONE = {"code": "invalid", "message": 'failed to decode request body: organization name "my-org" not found'}
NO_ROWS = "#datatype,string,long\r\n,result,table\r\n"


@pytest.fixture
def influxdb():
    with HTTPServer(host="127.0.0.1") as server:
        yield server


@pytest.fixture
def named(influxdb):
    token = Secret("t" * 20)
    return Settings(
        influxdb=InfluxSettings(url=influxdb.url_for(""), token=token, org="my-org", timeout=5),
        server=ServerSettings(session_key=Secret("test")),
    )


def answers(influxdb, status, body):
    influxdb.clear()
    text = body if isinstance(body, str) else json.dumps(body)
    for path in ("/api/v2/query", "/api/v2/write"):
        influxdb.expect_request(path, method="POST").respond_with_data(text, status=status)
    gone = {"code": "not found", "message": 'organization name "my-org" not found'}
    there = {"id": "b1", "orgID": "o1", "name": "iot_center_devices", "retentionRules": []}
    influxdb.expect_request("/api/v2/buckets").respond_with_json(
        {"buckets": [there]} if status == 200 else gone, status=200 if status == 200 else 404
    )


def test_an_organisation_that_is_gone_is_a_fault_of_the_store_said_once_with_its_remedy(
    influxdb, named, caplog, monkeypatch
):
    monkeypatch.setattr("center.influx.registry.PASSWORD_CACHED_S", -1.0)  # nothing is remembered
    caplog.set_level(logging.INFO, "center")
    answers(influxdb, 200, NO_ROWS)
    app = create_app(named)
    client = app.test_client()
    assert client.get("/health").status_code == 200
    answers(influxdb, 400, ORG_GONE)
    for _ in range(3):
        for method, path in (
            ("get", "/api/devices"),
            ("post", "/api/devices/pi-1"),
            ("get", "/api/devices/pi-1/measurements"),
        ):
            answer = getattr(client, method)(path)
            assert code(answer) == (503, "unavailable")
            assert "organization" in answer.json["message"]
            assert "iot-center setup" in answer.json["message"]
        assert client.get("/health").status_code == 503
        page = client.get("/devices")
        assert page.status_code == 503
        assert "iot-center setup" in page.text
    said = [record for record in caplog.records if record.name.startswith("center")]
    assert [record.levelname for record in said] == ["ERROR"], caplog.text
    assert "organization" in said[0].getMessage()
    answers(influxdb, 200, NO_ROWS)
    assert client.get("/api/devices").json == []
    levels = [record.levelname for record in caplog.records if record.name.startswith("center")]
    assert levels == ["ERROR", "INFO"]
    answers(influxdb, 400, ORG_GONE)
    client.get("/api/devices")
    levels = [record.levelname for record in caplog.records if record.name.startswith("center")]
    assert levels == ["ERROR", "INFO", "ERROR"]


def test_flux_in_error_is_still_the_askers(influxdb, named):
    answers(influxdb, 200, NO_ROWS)
    client = create_app(named).test_client()
    answers(influxdb, 400, {"code": "invalid", "message": "error @1:1-1:2: undefined identifier x"})
    answer = client.post("/api/devices/pi-1/measurements", json={"query": "x"})
    assert code(answer) == (400, "invalid")


def test_a_token_is_for_the_bucket_that_is_there_now(influxdb, named):
    """InfluxDB makes an authorization for the id of a deleted bucket without a word."""
    made = []

    def authorize(request):
        made.append(request.json)
        body = {**request.json, "id": f"0{len(made)}", "token": f"token-{len(made)}"}
        return Response(json.dumps(body), status=201, mimetype="application/json")

    influxdb.expect_request("/api/v2/authorizations", method="POST").respond_with_handler(authorize)
    with stores(named) as (registry, _):
        for bucket, org in (("b1", "o1"), ("b2", "o1"), ("b3", "o2")):
            found = {"id": bucket, "orgID": org, "name": "iot_center", "retentionRules": []}
            influxdb.expect_oneshot_request("/api/v2/buckets").respond_with_json({"buckets": [found]})
            registry.authorize("pi-1")
    resources = [asked["permissions"][0]["resource"] for asked in made]
    assert [(resource["id"], resource["orgID"]) for resource in resources] == [("b1", "o1"), ("b2", "o1"), ("b3", "o2")]
    assert [asked["orgID"] for asked in made] == ["o1", "o1", "o2"]


def test_check_tells_an_authorization_that_is_alive_from_one_that_was_deleted():
    ids = {"gone": None, "well": (True, True), "moved": (False, True), "asleep": (True, False)}
    registry = SimpleNamespace(
        bucket="iot_center",
        devices=lambda: DevicePage([Device(name, f"key-{name}", 0, 0, True) for name in ids], len(ids)),
        issued=lambda: {f"key-{name}": Issued(0, *state) for name, state in ids.items() if state},
        orphans=lambda **_: [],
    )
    texts = {finding.text.partition(":")[0]: finding for finding in devices(registry)}
    assert set(texts) == {"4 devices are registered", "gone", "moved", "asleep"}
    assert "deleted" in texts["gone"].text
    assert "alive" in texts["moved"].text
    assert "made anew" in texts["moved"].text
    assert "inactive" in texts["asleep"].text
    assert "by itself" not in texts["asleep"].remedy


def test_writes_go_over_one_connection():
    with InfluxServer() as server:
        influx = Influx(InfluxSettings(url=server.url, token=Secret(server.token), org=server.org))
        for n in range(3):
            influx.write(server.bucket, [f"m f={n}.5 {n + 1}"])
        influx.close()
        assert (server.writes, server.connections) == (3, 1)


@pytest.mark.influxdb
def test_a_bucket_that_is_made_anew_under_a_running_center_is_written_to_by_the_next_token():
    from influxdb_client.client.influxdb_client import InfluxDBClient

    from center.influx.client import find_org
    from tests.center.test_serve import writes
    from tests.center_helpers import influx_settings

    with influx_settings() as settings:
        client = create_app(settings).test_client()
        headers = {"X-Device-Secret": "s" * 32}

        def register():
            return client.post("/api/devices/pi-1", headers=headers).json

        influx = settings.influxdb
        assert writes(register()) == 204
        with InfluxDBClient(influx.url, influx.token.reveal(), org=influx.org) as admin:
            buckets = admin.buckets_api()
            buckets.delete_bucket(buckets.find_bucket_by_name(influx.bucket))
            missing = client.post("/api/devices/pi-1", headers=headers)
            assert code(missing) == (503, "unavailable")
            assert "iot-center setup" in missing.json["message"]
            buckets.create_bucket(bucket_name=influx.bucket, org=find_org(admin, influx.org))
            with stores(settings) as (registry, _):
                (finding,) = [f for f in devices(registry) if f.remedy]
                assert finding.text.startswith("pi-1: the authorization is alive, but not for")
                told = register()
                assert writes(told) == 204
                assert [f.remedy for f in devices(registry) if f.remedy] == []
