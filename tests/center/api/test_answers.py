"""The health of a center, and the one form of its errors."""

from tests.center_helpers import code


def test_a_balancer_may_ask_whether_it_is_well(client, center, monkeypatch):
    assert client.get("/health").json["status"] == "pass"
    if center.settings.series_on == "influxdb":
        from center.errors import StoreError

        def unreachable(*_):
            raise StoreError("InfluxDB does not answer")

        monkeypatch.setattr(type(center.registry.influx), "rows", unreachable)
        monkeypatch.setattr(center.registry, "_password", (float("-inf"), None))
        assert client.get("/api/devices").status_code == 503


def test_every_error_of_the_api_has_the_one_form(client):
    assert code(client.get("/api/no-such-thing")) == (404, "not found")
    answer = client.put("/api/devices")
    assert code(answer) == (405, "method not allowed")
    assert "POST" in answer.headers["Allow"]
