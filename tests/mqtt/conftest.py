"""A publisher that tries and looks more often than on a board."""

import pytest

from agent.mqtt import publisher


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(publisher, "BASE_S", 0.05)
    monkeypatch.setattr(publisher, "CAP_S", 0.1)
    monkeypatch.setattr(publisher, "LOOK_S", 0.05)
