"""The alerts API."""

from center.alerts import kept
from center.alerts.kept import Key, Message
from center.alerts.rules import State
from tests.center_helpers import PASSWORD, code

FROST = {"name": "Frost", "what": "below", "field": "Temperature", "threshold": 2, "hysteresis": 1, "duration_min": 10}


def test_a_rule_is_put_read_and_deleted(client, center):
    put = client.put("/api/alerts/rules/frost", json=FROST)
    assert put.status_code == 200
    assert put.json == {
        **FROST,
        "window_min": 60,
        "sensor": "",
        "scope": "all",
        "of": "",
        "receivers": [],
        "enabled": True,
    }
    assert client.get("/api/alerts/rules/frost").json == put.json
    assert client.put("/api/alerts/rules/frost", json={**put.json, "threshold": 1}).json["threshold"] == 1
    key = Key("pi-7", "", "below Temperature")
    kept.keep_alerts(center.registry, "frost", {key: State(10**9, 0.5, 2 * 10**9)}, [key.part])
    kept.keep_event(center.registry, Message(1, 0, "frost", "begins", "Frost", "pi-7: 0.5 °C", {}))
    told = client.get("/api/alerts").json
    assert told["firing"] == [
        {"rule": "frost", "device": "pi-7", "sensor": None, "value": 0.5}
        | {"since": "1970-01-01T00:00:01Z", "alertSince": "1970-01-01T00:00:02Z"}
    ]
    assert [event["text"] for event in told["history"]] == ["pi-7: 0.5 °C"]
    assert told["rules"]["frost"]["threshold"] == 1
    assert client.delete("/api/alerts/rules/frost").status_code == 204
    assert code(client.get("/api/alerts/rules/frost")) == (404, "not found")
    assert code(client.delete("/api/alerts/rules/frost")) == (404, "not found")


def test_what_is_wrong_is_said_with_its_field(client):
    answer = client.put("/api/alerts/rules/frost", json={**FROST, "threshold": "cold", "colour": 1})
    assert code(answer) == (400, "invalid")
    assert "threshold: 'cold': must be a number" in answer.json["message"]
    assert "colour: no such section" in answer.json["message"]
    assert code(client.put("/api/alerts/rules/frost", data="no JSON")) == (400, "invalid")
    assert code(client.put("/api/alerts/rules/a b", json=FROST)) == (400, "invalid")
    answer = client.put("/api/alerts/rules/frost", json={**FROST, "receivers": ["nobody"]})
    assert "there is no receiver nobody" in answer.json["message"]
    assert code(client.put("/api/alerts/rules/new", json=FROST)) == (400, "invalid")
    half = b'{"name": "a", "what": "clock", "receivers": ["\\ud800"]}'
    assert code(client.put("/api/alerts/rules/frost", data=half)) == (400, "invalid")


def test_it_is_for_administrators(client, center, locked):
    for method, path in (("get", ""), ("get", "/rules/x"), ("put", "/rules/x"), ("delete", "/rules/x")):
        assert code(getattr(client, method)(f"/api/alerts{path}", json=FROST)) == (401, "unauthorized")
    assert client.get("/api/alerts", auth=("admin", PASSWORD)).status_code == 200
