"""Every way in which a server can refuse a token that worked: it is renewed, and nothing is lost."""

import pytest

from tests.fake_center import FakeCenter
from tests.registering import APIS
from tests.servers import InfluxServer
from tests.system.test_registration_service import Agent


class Influx(InfluxServer):
    """Knows the tokens that a center issued; `refuse`: token → status."""

    def write(self, handler, body):
        token = handler.headers.get("Authorization", "").removeprefix("Token ")
        if token in self.refuse:
            status = self.refuse[token]
            return status, {"code": {401: "unauthorized", 403: "forbidden"}[status], "message": "no"}
        if token not in self.center.tokens.get("pi-7", []):
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        self.token = token
        return super().write(handler, body)


@pytest.mark.slow
@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("case", ["deleted", "inactive or for another bucket", "everything replaced"])
def test_a_refused_token_is_renewed_and_every_point_arrives(tmp_path, httpserver, api, case):
    center = FakeCenter(httpserver, api)
    with Influx() as influx:
        influx.center, influx.refuse = center, {}
        center.place["influx_url"] = influx.url
        agent = Agent(tmp_path, center.url, center.place if api == "iot-api" else {})
        try:
            agent.delivered()
            (token,) = center.tokens["pi-7"]
            if case == "deleted":
                influx.refuse[token] = 401
            elif case == "inactive or for another bucket":
                influx.refuse[token] = 403
            else:
                center.tokens.clear()
                center.secrets.clear()
            agent.when(lambda found: found["registration"]["renewals"] == 1)
            found = agent.delivered()
            assert found["ledger"]["unaccounted"] == 0
            assert found["ledger"]["dropped"] == found["ledger"]["rejected"] == 0
            assert center.tokens["pi-7"] != [token]
            assert len(center.tokens["pi-7"]) == 1
        finally:
            agent.stop()
        stored = sum(series.startswith(b"environment") for series, _ in influx.points)
        assert stored >= found["ledger"]["delivered"]
