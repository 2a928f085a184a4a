"""All stores; Debian's victoria-metrics, where it is installed, and
INFLUXDB_V2_URL, INFLUXDB_V2_TOKEN, INFLUXDB_V2_ORG name an InfluxDB 2 where they are set."""

import contextlib
import time

import pytest

from tests.center_helpers import embedded_settings, influx_settings, stores, victoria_settings

STORES = [
    "embedded",
    pytest.param("influxdb", marks=pytest.mark.influxdb),
    pytest.param("victoria", marks=pytest.mark.victoria),
]


@pytest.fixture(scope="module", params=STORES)
def opened(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        if request.param == "embedded":
            chosen = embedded_settings(tmp_path_factory.mktemp("center"))
        elif request.param == "victoria":
            chosen = stack.enter_context(victoria_settings(tmp_path_factory.mktemp("victoria")))
        else:
            chosen = stack.enter_context(influx_settings())
        yield stack.enter_context(stores(chosen))


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
