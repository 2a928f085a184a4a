"""The forms of the pages: what is asked for, what is right, and what is said when it is not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from flask_wtf import FlaskForm
from wtforms import FloatField, IntegerField, PasswordField, SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired, InputRequired, Length, NumberRange, Optional, ValidationError

from center.pages.presentation import look
from center.stores.registry import check_device_id
from center.stores.telemetry import FUNCTIONS
from center.times import now_ns, parse_time
from drivers.base import QUANTITIES, available

RANGES = {
    "15m": ("15 min", 900),
    "1h": ("1 h", 3600),
    "6h": ("6 h", 6 * 3600),
    "24h": ("24 h", 86_400),
    "7d": ("7 days", 7 * 86_400),
    "30d": ("30 days", 30 * 86_400),
    "90d": ("90 days", 90 * 86_400),
    "1y": ("1 year", 365 * 86_400),
}
MAX_DEVICES = 8  # in one question
SENSORS = [name for name in available() if name not in {"adafruit", "emulated"}]  # those need options
MEASURED = [name for name, quantity in QUANTITIES.items() if not quantity.derived]
BY_HAND = "by hand"  # what is chosen for a sensor where no agent of ours runs
WINDOWS = {
    "auto": "Automatic",
    "none": "None: every point",
    "10s": "10 s",
    "1m": "1 min",
    "5m": "5 min",
    "15m": "15 min",
    "1h": "1 h",
    "6h": "6 h",
    "1d": "1 day",
    "7d": "7 days",
}


def _stripped(value: str | None) -> str | None:
    return value.strip() if value else value


class Between(NumberRange):  # type: ignore[misc]
    """Also for integers that no float holds."""

    def __call__(self, form: Any, field: Any) -> None:
        try:
            super().__call__(form, field)
        except OverflowError as error:
            raise ValidationError(self.message) from error


def a_device_id(_: Any, field: Any) -> None:
    try:
        check_device_id(field.data or "")
    except ValueError as error:
        raise ValidationError(
            "Use 1 to 64 letters, digits, dots, hyphens or underscores, and not dots alone."
        ) from error


def device_ids(_: Any, field: StringField) -> None:
    """One device or several, with commas between."""
    names = split(field.data)
    if not 0 < len(names) <= MAX_DEVICES:
        raise ValidationError(f"Name 1 to {MAX_DEVICES} devices.")
    for name in names:
        a_device_id(_, SimpleNamespace(data=name))


def split(text: str | None) -> list[str]:
    """The names in a list with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def a_time(_: Any, field: StringField) -> None:
    try:
        parse_time(field.data, now_ns())
    except ValueError as error:
        raise ValidationError(f"{error}.") from error


class Login(FlaskForm):  # type: ignore[misc]  # Flask-WTF has no types
    password = PasswordField("Password", [InputRequired("Type the administrator's password.")])


class AddDevice(FlaskForm):  # type: ignore[misc]
    name = StringField(
        "Name",
        [DataRequired("Give the device a name.")],
        description="As you call it: Greenhouse 3.",
        filters=[_stripped],
    )
    device_id = StringField(
        "Device id",
        [Optional(), a_device_id],
        description="For machines, and for good: letters, digits, dots, hyphens or underscores. Empty: from the name.",
        filters=[_stripped],
    )
    group = StringField(
        "Group", description="Empty, or what you look for it by, like Greenhouses.", filters=[_stripped]
    )
    sensor = SelectField(
        "Sensor",
        choices=[
            SelectChoice("", "What is found on the board"),
            *(SelectChoice(name, name) for name in SENSORS),
            SelectChoice(BY_HAND, "No agent of ours: a token to write with"),
        ],
        description="virtual measures made-up weather, to try things out.",
    )


class MakeKey(FlaskForm):  # type: ignore[misc]
    note = StringField("Note", [Optional(), Length(max=80)], description="For you: who or what it is for.")
    uses = IntegerField(
        "Devices it may register",
        [InputRequired("A number from 1 to 10,000."), Between(1, 10_000, "A number from 1 to 10,000.")],
        default=1,
    )
    days = IntegerField(
        "Valid for days",
        [InputRequired("A number from 1 to 365."), Between(1, 365, "A number from 1 to 365.")],
        default=7,
    )


class Query(FlaskForm):  # type: ignore[misc]
    """Sent with GET: a query changes nothing and its address can be kept."""

    class Meta:
        csrf = False

    device = StringField(
        "Device",
        [InputRequired("Name the device to query."), device_ids],
        description="Several: commas between them.",
        filters=[_stripped],
    )
    field = StringField("Field", [Optional(), Length(max=200)], description="Empty: all fields.", filters=[_stripped])
    since = StringField(
        "From",
        [Optional(), a_time],
        description="Empty: by the range. Or -2h, or 2026-11-24T06:30:00Z (UTC unless it says otherwise).",
        filters=[_stripped],
    )
    to = StringField("To", [Optional(), a_time], description="Empty: now.", filters=[_stripped])
    range = SelectField("Range", choices=[SelectChoice(k, f"Last {v[0]}") for k, v in RANGES.items()], default="24h")
    window = SelectField("Window", choices=[SelectChoice(k, v) for k, v in WINDOWS.items()], default="auto")
    fn = SelectField("Function", choices=[SelectChoice(f, f) for f in FUNCTIONS], default="mean")

    def device_ids(self) -> list[str]:
        return split(self.device.data)


class RawFlux(FlaskForm):  # type: ignore[misc]
    flux = TextAreaField("Flux", [InputRequired("Write a query."), Length(max=20_000)])


class Write(FlaskForm):  # type: ignore[misc]
    """One point of measurement `environment`; a field for each quantity of the data model."""

    device = StringField("Device", [InputRequired("Name the device."), a_device_id], filters=[_stripped])
    time = StringField(
        "Time",
        [Optional(), a_time],
        description="Empty: now. Or -2h, or 2026-11-24T06:30:00Z (UTC unless it says otherwise).",
        filters=[_stripped],
    )

    def values(self) -> dict[str, float | int]:
        """What was typed in, by field."""
        return {f: self[f].data for f in MEASURED if self[f].data is not None and math.isfinite(self[f].data)}

    def validate(self, extra_validators: Any = None) -> bool:
        right = bool(super().validate(extra_validators))
        if right and not self.values():
            self[MEASURED[0]].errors = ["Give at least one value."]
            return False
        return right


for _quantity in (QUANTITIES[name] for name in MEASURED):
    _kind = IntegerField if _quantity.kind == "integer" else FloatField
    _limits = f"From {_quantity.low:g} to {_quantity.high:g} {_quantity.unit}."
    _label = f"{look(_quantity.field).label} ({_quantity.unit})"
    setattr(Write, _quantity.field, _kind(_label, [Optional(), Between(_quantity.low, _quantity.high, _limits)]))


class WriteLines(FlaskForm):  # type: ignore[misc]
    lines = TextAreaField(
        "Line protocol",
        [InputRequired("Write at least one line."), Length(max=1_000_000)],
        description="One point a line. A line without a time stamp is dated when it arrives.",
    )
