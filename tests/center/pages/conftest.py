"""The pages as a user walks them, with the embedded store and Flask's client."""

from __future__ import annotations

import contextlib
import os

import pytest

from center.app import create_app
from center.context import EXTENSION
from tests.center_helpers import HASH, embedded_settings, influx_settings, measured

# Without an InfluxDB there is nothing to skip here: tests/center/stores says how to name one.
STORES = ["embedded", pytest.param("influxdb", marks=pytest.mark.influxdb)]


@pytest.fixture(params=STORES if os.environ.get("INFLUXDB_V2_URL") else STORES[:1])
def app(request, tmp_path):
    """The center over either store; InfluxDB where one is named by the environment."""
    with contextlib.ExitStack() as stack:
        embedded = request.param == "embedded"
        settings = embedded_settings(tmp_path) if embedded else stack.enter_context(influx_settings())
        app = create_app(settings)
        app.config["WTF_CSRF_ENABLED"] = False  # its own test switches it on
        yield app
        app.extensions[EXTENSION].close()


@pytest.fixture
def center(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def pi_7(center):
    """A registered device with an hour of weather."""
    center.registry.register("pi-7", administrator=True)
    measured(center, "pi-7")
    return "pi-7"


@pytest.fixture
def guarded(app, center):
    center.registry.set_password_hash(HASH)
    return app.test_client()
