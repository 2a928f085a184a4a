"""The way to VictoriaMetrics."""

import itertools
import json

from pytest_httpserver import HTTPServer
from werkzeug import Response

from center.settings import VictoriaSettings
from center.victoria.client import Victoria


def test_an_export_that_is_more_than_is_wanted_is_not_read_to_its_end():
    piece = json.dumps({"metric": {"n": "1"}, "timestamps": [1], "values": [1]}).encode() + b"\n"
    with HTTPServer() as server:
        server.expect_request("/api/v1/export").respond_with_handler(
            lambda _: Response(itertools.repeat(piece))  # without end
        )
        victoria = Victoria(VictoriaSettings(url=server.url_for("")))
        samples = victoria.export(["x"], 0, 1)
        assert next(samples) == ({"n": "1"}, [1], [1.0])
        samples.close()
        victoria.close()
