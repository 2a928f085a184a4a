"""What delivery says about its troubles: once when one begins, changes and ends, with counts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal

from agent.config.units import counted, rough_duration

log = logging.getLogger("agent.delivery")

AGAIN_NS = 3600 * 1_000_000_000
"""Refused and parked points are told of at once when the reason is new, else once an hour."""
REASONS = 32
"""That are remembered for it, the latest."""
FATES = {
    "refused": "refused for good and kept (iot-agent rejected list)",
    "parked": "refused for a reason that is not known or that somebody can mend, held back and retried slowly",
    "held": "did not go through and are tried again",
}


@dataclass(slots=True)
class OutageLog:
    """The failure of now (`kind` None: none), and what was refused since it was last said. Boot-clock nanoseconds."""

    kind: str | None = None
    text: str | None = None
    count: int = 0
    url: str = ""
    changed_ns: int = 0
    _began_ns: int = 0
    _unsaid: str | None = None  # the failure that is over since the server answers, but no point went yet
    _said: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def begin(self, now: int, kind: str, text: str, *, loud: bool = False, error: Exception | None = None) -> None:
        """A failure, perhaps the same as before. `loud`: it ends only when somebody does something."""
        level = logging.ERROR if loud else logging.WARNING
        before, self._unsaid = self.kind or self._unsaid, None
        if before is None:
            self._began_ns = self.changed_ns = now
            log.log(level, "delivery to %s fails: %s; all points are kept", self.url, text, exc_info=error)
        elif before != kind:
            log.log(level, "delivery to %s now fails otherwise: %s (after %d attempts)", self.url, text, self.count)
        self.kind, self.text = kind, text
        self.count += 1

    def end(self, now: int, *, went: bool = True) -> None:
        """The server takes what is sent. Said once points `went`, or none wait."""
        if not went:
            self._unsaid = self.kind or self._unsaid
        elif self.kind is not None or self._unsaid is not None:
            self._unsaid = None
            lasted = rough_duration((now - self._began_ns) / 1e9)
            log.info("delivery works again after %s and %d attempts", lasted, self.count)
            self.changed_ns = now
        self.kind, self.text = None, None
        if went:
            self.count = 0

    def tell(self, now: int, what: Literal["refused", "parked", "held"], points: int, text: str) -> None:
        """Of points that did not go through: at once where the reason is new."""
        reason = what, "".join(c for c in text if not c.isdigit())
        last, silent = self._said.pop(reason, (None, 0))
        points += silent
        if last is not None and now - last < AGAIN_NS:
            self._said[reason] = (last, points)
            return
        self._said[reason] = (now, 0)
        log.warning("%s %s: %s", counted(points, "point"), FATES[what], text)
        if len(self._said) > REASONS:
            del self._said[next(iter(self._said))]
