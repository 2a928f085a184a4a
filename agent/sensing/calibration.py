"""What a better instrument says: a straight line for a quantity, from `offset` and `scale` or from two points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.config.settings import SensorSettings
from drivers.base import QUANTITIES


@dataclass(frozen=True, slots=True)
class Calibration:
    """`lines`: (scale, offset) by quantity; what is reported is scale * measured + offset, in its unit."""

    lines: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, settings: SensorSettings) -> Calibration:
        """By quantity, either `calibrate` or `scale` and `offset` (config/limits.py sees to that)."""
        lines = {}
        for name in {**settings.offset, **settings.scale}:
            lines[name] = settings.scale.get(name, 1.0), settings.offset.get(name, 0.0)
        for name, ((raw, true), (other_raw, other_true)) in settings.calibrate.items():
            scale = (other_true - true) / (other_raw - raw)
            lines[name] = scale, true - scale * raw
        return cls(lines)

    def applied(self, name: str, value: float) -> float:
        """A small overshoot of a limit, as of 99 %RH with an offset of 2, means the limit."""
        if name not in self.lines:
            return value
        scale, offset = self.lines[name]
        return QUANTITIES[name].clamped(scale * value + offset)

    def described(self) -> dict[str, str]:
        """`1.02 * measured - 0.8 °C`, by quantity."""
        return {
            name: f"{scale:.5g} * measured {'-' if offset < 0 else '+'} {abs(offset):.5g} {QUANTITIES[name].unit}"
            for name, (scale, offset) in self.lines.items()
        }
