"""A center on each store, shared by the tests of a module."""

import contextlib
import dataclasses
import time

import pytest

from center import security
from center.app import create_app
from center.context import EXTENSION
from center.settings import DeviceDefaults
from tests.center_helpers import HASH, embedded_settings, influx_settings, seen_at_once, victoria_settings

STORES = [
    "embedded",
    pytest.param("influxdb", marks=pytest.mark.influxdb),
    pytest.param("victoria", marks=pytest.mark.victoria),
]


@pytest.fixture(scope="module", params=STORES)
def app(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            settings = embedded_settings(tmp_path_factory.mktemp("center"))
        elif request.param == "victoria":
            settings = stack.enter_context(victoria_settings(tmp_path_factory.mktemp("victoria")))
        else:
            settings = stack.enter_context(influx_settings())
        defaults = DeviceDefaults(default_lat=50.0874, default_lon=14.4072)
        app = create_app(dataclasses.replace(settings, devices=defaults))
        seen_at_once(app.extensions[EXTENSION].telemetry)
        yield app
        app.extensions[EXTENSION].close()


@pytest.fixture
def center(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def locked(app, center, monkeypatch):
    """With a password: nobody is trusted for being on this machine. Afterwards as if started anew without."""
    monkeypatch.setitem(app.extensions, security.DOORS, security.Doors())
    center.registry.set_password_hash(HASH)
    yield
    center.registry.set_password_hash(None)


@pytest.fixture
def device(request):
    return f"{request.node.originalname[5:40]}-{time.time_ns() % 10**9}"
