"""What a rule is, and when an alert begins and ends. All pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from agent.config.units import counted, rough_duration
from center.documents import FieldsError, structured
from drivers.quantities import QUANTITIES, label

What = Literal["silent", "above", "below", "changes", "failing", "backlog", "rejected", "clock"]
WORDS: Mapping[What, str] = {
    "silent": "silent for more than {limit}",
    "above": "{field} above {limit}",
    "below": "{field} below {limit}",
    "changes": "{field} changing by more than {limit} an hour",
    "failing": "a sensor failing for more than {limit}",
    "backlog": "more than {limit} waiting to be delivered",
    "rejected": "more than {limit} refused within {window}",
    "clock": "the clock not synchronised",
}
MEASURED = ("above", "below", "changes")
OVER = ("changes", "rejected")  # what is told over a window
UNUSED: Mapping[What, Sequence[str]] = {  # what has no use for which fields: app.css hides them, and they are sent
    "silent": ("field", "sensor", "hysteresis", "duration_min"),
    "failing": ("field", "hysteresis"),
    "backlog": ("field", "sensor", "hysteresis"),
    "rejected": ("field", "sensor", "hysteresis"),
    "clock": ("field", "sensor", "hysteresis", "threshold"),
}
MOST_MIN = 7 * 24 * 60
MOST_NAME = 64
MOST_TOLD = 20  # receivers: what became of each stands beside a message
Event = Literal["begins", "ends"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is watched, of whom, and who is told. `threshold` and `hysteresis` are in the unit of what is watched: a
    quantity's (of `field`; an hour, where it changes), minutes for silent and failing, points for backlog and rejected;
    a clock has none. `of`: the group, or the device, of the scope.
    """

    name: str
    what: What
    threshold: float = 0.0
    hysteresis: float = 0.0
    duration_min: float = 0.0
    window_min: float = 60.0
    field: str = ""
    sensor: str = ""
    scope: Literal["all", "group", "device"] = "all"
    of: str = ""
    receivers: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def about(self) -> str:
        """Of what its alerts are: a rule that is about something else begins anew."""
        return " ".join(filter(None, (self.what, self.field, self.sensor)))

    @property
    def words(self) -> str:
        """Temperature of bench below 2 °C for 10 min."""
        field = label(self.field) + (f" of {self.sensor}" if self.sensor else "")
        limit, window = said(self, self.threshold), rough_duration(self.window_min * 60)
        lasting = f" for {rough_duration(self.duration_min * 60)}" if self.duration_min else ""
        return WORDS[self.what].format(field=field, limit=limit, window=window) + lasting


@dataclass(frozen=True, slots=True)
class State:
    """Beyond the threshold since a point of `since_ns`; an alert since `fired_ns`, 0 while it has not lasted yet.
    `value` is the one that it began with.
    """

    since_ns: int
    value: float
    fired_ns: int = 0


def step(
    rule: Rule, state: State | None, value: float | None, at_ns: int, now: int
) -> tuple[State | None, Event | None]:
    """The state after a value of `at_ns`, and what that begins or ends. What is not known (None) does neither.

    How long it lasts is told by the times of points: a clock that steps here changes nothing, and one that is put back
    there starts it anew.
    """
    if value is None or not math.isfinite(value):
        return state, None
    beyond = rule.threshold - value if rule.what == "below" else value - rule.threshold
    if state and state.fired_ns:
        return (None, "ends") if beyond <= -rule.hysteresis else (state, None)
    if beyond <= 0:
        return None, None
    since = state.since_ns if state and state.since_ns <= at_ns else at_ns
    if at_ns - since >= rule.duration_min * 60e9:
        return State(since, value, now), "begins"
    return (state if state and state.since_ns == since else State(since, value)), None


def said(rule: Rule, value: float) -> str:
    """A value of what the rule watches: `1.4 °C`, `25 min`, `3,000 points`."""
    if rule.what in MEASURED:
        quantity = QUANTITIES.get(rule.field)
        number = f"{round(value, quantity.decimals if quantity else 3):,}".removesuffix(".0")
        return f"{number} {quantity.unit}" if quantity else number
    if rule.what == "clock":
        return "not synchronised" if value else "synchronised"
    return counted(round(value), "point") if rule.what in {"backlog", "rejected"} else rough_duration(value * 60)


def checked(given: Any) -> Rule:
    """The rule that this JSON is. FieldsError, with all that is wrong."""
    rule = structured(given, Rule, "a JSON object with name, what, threshold … is needed: see docs/alerts.md")
    if wrong := dict(_wrong(rule)):
        raise FieldsError(wrong)
    unused = [*UNUSED.get(rule.what, ()), *(["of"] if rule.scope == "all" else [])]
    return replace(rule, **{name: _PLAIN[name] for name in unused})


def _wrong(rule: Rule) -> Iterator[tuple[str, str]]:
    for name, most in (("name", 80), ("field", MOST_NAME), ("sensor", MOST_NAME), ("of", MOST_NAME)):
        if len(text := getattr(rule, name)) > most or not text.isprintable():
            yield name, f"a text of at most {most} characters that can be shown"
    if not rule.name.strip():
        yield "name", "a rule needs a name"
    if rule.what in MEASURED and not rule.field:
        yield "field", 'name what is measured, like "Temperature"'
    if not abs(rule.threshold) < 1e12 or (rule.threshold <= 0 and rule.what in {"silent", "changes"}):
        yield "threshold", "a number; of silence, or of change, one above 0"
    if not 0 <= rule.hysteresis < 1e12:
        yield "hysteresis", "0 or more: how far back a value has to come before the alert ends"
    if rule.what == "changes" and rule.hysteresis >= rule.threshold:
        yield "hysteresis", "less than the threshold: else the alert would never end"
    if not 0 <= rule.duration_min <= MOST_MIN:
        yield "duration_min", "0 to 10080 minutes"
    if not 1 / 60 <= rule.window_min <= MOST_MIN:
        yield "window_min", "1 to 10080 minutes"
    if len(rule.receivers) > MOST_TOLD:
        yield "receivers", f"{MOST_TOLD} at most"
    if rule.scope != "all" and not rule.of:
        yield "of", f"name the {rule.scope}"


_PLAIN: Mapping[str, Any] = asdict(Rule("", "clock"))
