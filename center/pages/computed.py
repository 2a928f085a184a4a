"""What is computed from what a device measured, where it does not send it itself: dew point and the like. All pure; the
formulas are the agent's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from agent.sensing.derived import FORMULAS
from center.stores.telemetry import Curve, Value

SOURCES = ("Temperature", "Humidity")


def computable(fields: Collection[str]) -> list[str]:
    """The quantities that these fields let one compute and that are not among them."""
    return [name for name in FORMULAS if name not in fields] if set(SOURCES) <= set(fields) else []


def sources(fields: Sequence[str]) -> tuple[str, ...]:
    """The fields to ask a store for, so that these can be drawn."""
    wanted = [*fields, *(SOURCES if any(f in FORMULAS for f in fields) else ())]
    return tuple(dict.fromkeys(wanted))


def value_of(name: str, temperature: Value, humidity: Value) -> float | None:
    """The quantity of this name at `temperature` °C and `humidity` %RH; None for what are no numbers of air."""
    if isinstance(temperature, str) or isinstance(humidity, str) or not 0 < humidity <= 100 or temperature < -80:
        return None
    return FORMULAS[name](temperature, humidity)


def with_computed(curves: Sequence[Curve], fields: Sequence[str]) -> list[Curve]:
    """The curves of these fields (none named: of all), computed ones among them: of each sensor that measures both
    temperature and humidity, at the moments that have both, and not where the device sends the quantity itself.
    """
    sent = {(c.field, c.sensor): c for c in curves}
    found = [c for c in curves if not fields or c.field in fields]
    for name in FORMULAS:
        if name not in fields or any(c.field == name for c in curves):
            continue
        for temperature in (c for c in curves if c.field == "Temperature"):
            humidity = sent.get(("Humidity", temperature.sensor))
            if humidity is not None and (pairs := list(_computed(name, temperature, humidity))):
                found.append(Curve(name, temperature.sensor, [t for t, _ in pairs], [v for _, v in pairs]))
    return found


def _computed(name: str, temperature: Curve, humidity: Curve) -> Iterable[tuple[int, float]]:
    at = dict(zip(humidity.times_ns, humidity.values, strict=True))
    for time_ns, warm in zip(temperature.times_ns, temperature.values, strict=True):
        if time_ns in at and (value := value_of(name, warm, at[time_ns])) is not None:
            yield time_ns, value
