"""What happens to a reading between its driver and its report: judged, calibrated, judged again, completed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from agent.config.settings import SensorSettings
from agent.sensing.calibration import Calibration
from agent.sensing.derived import FORMULAS, sea_level_pressure
from agent.sensing.plausibility import Plausibility, out_of_range
from drivers.base import WHOLE, Reading


class Treatment:
    """Of one [[sensor]]; it remembers what it believed last. Ranges are the sensor's: they are judged uncalibrated."""

    def __init__(self, settings: SensorSettings) -> None:
        self._plausibility = Plausibility(settings.max_rate)
        self.calibration = Calibration.of(settings)
        self._derive = _derived(settings)

    def of(self, reading: Reading) -> Reading:
        """The values to deliver, and by quantity why another is `refused`."""
        judged = self._plausibility.judge(reading)
        values, refused = {}, dict(judged.refused)
        for name, measured in judged.values.items():
            value = self.calibration.applied(name, measured)
            if problem := out_of_range(name, value):
                refused[name] = f"{problem}, once calibrated"
            else:
                values[name] = value
        self._complete(values, refused)
        return replace(judged, values=values, refused=refused)

    @property
    def undecided(self) -> bool:
        """Whether more readings at once would tell if what was just refused is true."""
        return self._plausibility.undecided

    def _complete(self, values: dict[str, float | int], refused: dict[str, str]) -> None:
        """Put what is derived among the values; what its sensor has no quantity for is refused, by name."""
        for name, (needs, formula) in self._derive.items():
            missing = [need for need in needs if need not in values]
            if missing:
                if WHOLE not in refused and not any(need in refused for need in missing):
                    refused[name] = f"it needs {' and '.join(missing)}, which this sensor does not give"
                continue
            value = formula(*(values[need] for need in needs))
            if value is not None and (problem := out_of_range(name, value)):
                refused[name] = problem
            elif value is not None:
                values[name] = value


def _derived(settings: SensorSettings) -> dict[str, tuple[tuple[str, str], Callable[[float, float], float | None]]]:
    """What it needs, and its formula, of each quantity that is asked for."""
    names = ["DewPoint", *settings.derive] if settings.dew_point else settings.derive
    derived = {name: (("Temperature", "Humidity"), FORMULAS[name]) for name in names}
    if settings.altitude is not None:
        formula = partial(sea_level_pressure, altitude=settings.altitude)
        derived["PressureSeaLevel"] = (("Pressure", "Temperature"), formula)
    return derived
