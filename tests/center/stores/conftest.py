"""All stores; Debian's victoria-metrics, where it is installed, and
INFLUXDB_V2_URL, INFLUXDB_V2_TOKEN, INFLUXDB_V2_ORG name an InfluxDB 2 where they are set."""

import contextlib
import dataclasses
import time

import pytest

from center.settings import VictoriaSettings
from tests.center_helpers import embedded_settings, influx_settings, stores, victoria_settings

STORES = [
    "embedded",
    pytest.param("influxdb", marks=pytest.mark.influxdb),
    pytest.param("victoria", marks=pytest.mark.victoria),
]


@contextlib.contextmanager
def opened_store(name, folder):
    """Registry and telemetry of a store of its own. `issuing`: a registry on InfluxDB for series on VictoriaMetrics."""
    with contextlib.ExitStack() as stack:
        if name == "embedded":
            chosen = embedded_settings(folder)
        elif name == "victoria":
            chosen = stack.enter_context(victoria_settings(folder))
        else:
            chosen = stack.enter_context(influx_settings())
            if name == "issuing":
                chosen = dataclasses.replace(chosen, victoria=VictoriaSettings(url="http://127.0.0.1:9"))
        yield stack.enter_context(stores(chosen))


@pytest.fixture(scope="module", params=STORES)
def opened(request, tmp_path_factory):
    with opened_store(request.param, tmp_path_factory.mktemp(request.param)) as store:
        yield store


@pytest.fixture
def registry(opened):
    return opened[0]


@pytest.fixture
def telemetry(opened):
    return opened[1]


@pytest.fixture
def device(request):
    """An id of its own for each test: the stores are shared."""
    return f"{request.node.originalname[5:45]}-{time.time_ns() % 10**9}".replace("[", "-").replace("]", "")
