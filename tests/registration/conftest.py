import pytest

from tests.registering import FakeClock, maker


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def registrar(tmp_path, clock):
    return maker(tmp_path, clock)
