"""A Registrar whose clock and randomness are the test's."""

import random

from agent.config.settings import CenterSettings
from agent.registration.registrar import Registrar

APIS = ["iot-center", "iot-center-v2", "iot-api"]


class FakeClock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def maker(tmp_path, clock):
    """A function that makes the Registrar of a device towards a FakeCenter, its state in tmp_path / "state"."""

    def make(center, device_id="pi-7", **settings):
        hooks = {name: settings.pop(name) for name in ("on_remote", "observe", "tell") if name in settings}
        places = center.place if center.api == "iot-api" else {}
        settings = {"url": center.url.rstrip("/"), "timeout": 2.0} | places | settings
        clocks = {"now": clock, "rng": random.Random(1), "look_s": 1e9}
        return Registrar(CenterSettings(**settings), device_id, tmp_path / "state", **clocks, **hooks)

    return make


def settle(registrar, clock, hours=1.0):
    """Steps until it is registered, at most for `hours`."""
    end = clock.now + hours * 3600
    while (delay := registrar.step()) + clock.now < end and registrar.snapshot().state != "registered":
        clock.now += delay
    return registrar.target()
