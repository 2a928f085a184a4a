"""What a center answers and what it must be, checked field by field, whatever the dialect."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.config.limits import check_url
from agent.util.errors import AgentError
from agent.util.http import Answer
from agent.util.secret import TOKEN, Secret

MAX_RETRY_AFTER_S = 3600.0
PLACEHOLDER = "fake_auth_token"
UNKNOWN_HERE = (
    "this device's secret was lost, or another board has the same id. An administrator of the center must remove {id} "
    "there; then it registers by itself. Or choose another [device] id"
)


class RegistrationError(AgentError):
    """Registration did not work. `retry_after_s`: when the center asks to be asked again."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotThisApiError(RegistrationError):
    """The server does not speak this dialect."""


class TokenWithheldError(RegistrationError):
    """The device is registered, and the server does not hand out the token (again)."""


class IndistinctError(RegistrationError):
    """The server cannot tell this device from another one."""


class NotRegisteredError(RegistrationError):
    """The center answers that it has no registration of this device."""


class SecretWantedError(RegistrationError):
    """The center speaks of a device to that device alone, and there is no secret yet to show that by."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A center's whole answer to one request, which `what` names. `hidden` is what no message may show; `tell_time`
    hands the clock what it says about the time.
    """

    what: str
    status: int
    answer: Answer
    tell_time: Callable[..., None]
    hidden: tuple[Secret, ...] = ()
    key_problem: str | None = None

    def record(self) -> Mapping[str, Any]:
        """The body as a JSON object."""
        found = self._json()
        if not isinstance(found, dict):
            raise NotThisApiError(f"{self.what}: {self.status} with {_named(found)}, not an object")
        return found

    def records(self) -> list[Mapping[str, Any]]:
        """The body as a JSON list of objects."""
        found = self._json()
        if not isinstance(found, list):
            raise NotThisApiError(f"{self.what}: {self.status} with {_named(found)}, not a list of objects")
        if strange := [item for item in found if not isinstance(item, dict)]:
            raise NotThisApiError(f"{self.what}: {self.status} with {_named(strange[0])} in its list, not an object")
        return found

    def _json(self) -> Any:
        """The body as JSON. RegistrationError that says what came instead. What it may be, its callers say."""
        try:
            return json.loads(self.answer.body)
        except (ValueError, RecursionError):
            raise RegistrationError(f"{self.what}: {self.status} with {self._kind()}") from None

    def own(self, name: str, device_id: str) -> Mapping[str, Any]:
        """The body as a JSON object that is about this device by its field `name`."""
        record = self.record()
        if name not in record:
            raise NotThisApiError(f"{self.what}: {self.status} with a JSON object without {name}")
        if record[name] != device_id:
            raise RegistrationError(
                f"{self.what}: the answer is for {str(record[name])[:64]!r}, not for {device_id}: nothing of it is used"
            )
        return record

    def _kind(self) -> str:
        if not self.answer.body.strip():
            return "an empty body instead of JSON"
        if self.is_html():
            return "HTML instead of JSON: is this the address of the center's API? It begins " + self.excerpt()
        return f"{len(self.answer.body)} bytes that are not JSON"

    def is_html(self) -> bool:
        """By its first character: some of these servers label their JSON text/html."""
        return self.answer.body.lstrip()[:1] == b"<"

    def excerpt(self, length: int = 120) -> str:
        """How the server's words begin, for a message, without secrets. Only for answers that hold no token."""
        words = self.answer.message() or self.answer.body.decode("utf-8", "replace")
        text = " ".join(words[:2000].split())
        for secret in self.hidden:
            text = text.replace(secret.reveal(), "***")
        return repr(text[:length])

    def already_registered(self) -> bool:
        known = re.search(rb"already (?:registered|exists|has an)", self.answer.body, re.IGNORECASE)
        return self.status == 500 and known is not None

    def refused(self, hint: str = "") -> RegistrationError:
        """The error for a status that is no success."""
        said = self.excerpt(200) if self.answer.body.strip() else "an empty body"
        text = f"{self.what}: {self.status} {said}"
        return RegistrationError(f"{text}: {hint}" if hint else text, self.retry_after_s())

    def retry_after_s(self) -> float | None:
        return self.answer.retry_after_s(time.time_ns(), MAX_RETRY_AFTER_S)


def _named(value: object) -> str:
    """What stands in JSON in the place of something else."""
    kind = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return f"JSON: {kind.get(type(value), 'a number')}"


@dataclass(frozen=True, slots=True)
class Told:
    """Where to write and how to measure, as a center says it; None and missing where it does not.

    Addresses are checked, `refused` has a sentence for each that is none; `fields` are numbers as they came, for
    remote_config.accept.
    """

    url: str | None
    org: str | None
    bucket: str | None
    fields: Mapping[str, Any] = field(repr=False)
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """What a registration gave, checked."""

    token: Secret
    told: Told


def check_status(reply: Reply, device_id: str) -> None:
    """Raises the error that the status stands for; returns for 200 and 201 with something that is not HTML."""
    if reply.status in (200, 201):
        if reply.is_html():
            raise NotThisApiError(f"{reply.what}: {reply.status} with HTML, not JSON: it begins {reply.excerpt(60)}")
        return
    if reply.status in (404, 405, 501):
        raise NotThisApiError(f"{reply.what}: {reply.status}")
    if reply.already_registered():
        raise TokenWithheldError(f"{reply.what}: {reply.excerpt(200)}")
    if reply.status == 409 and reply.retry_after_s() is None:
        raise reply.refused(UNKNOWN_HERE.format(id=device_id))
    if reply.status in (401, 403):
        if reply.key_problem:
            raise RegistrationError(f"no enrollment key was sent, since {reply.key_problem}. {reply.refused()}")
        raise reply.refused(
            "if it asks for an enrollment key, an administrator makes one: set [center] enrollment_key_file to it"
        )
    raise reply.refused()


def registration(reply: Reply, record: Mapping[str, Any], token_name: str) -> Registration:
    token = token_of(reply, record.get(token_name), token_name)
    told = told_by(reply, record, written=True)
    if told.refused:
        raise RegistrationError(told.refused[0])
    return Registration(token, told)


def token_of(reply: Reply, value: object, name: str) -> Secret:
    """A token that can be used. What came instead is described, never shown."""
    if value is None or value == "":
        raise TokenWithheldError(f"{reply.what}: {reply.status} with an empty {name}: registered, but not handed out")
    if not isinstance(value, str):
        raise RegistrationError(f"{reply.what}: {name} is {_named(value)}, not text")
    if value.startswith(PLACEHOLDER):
        raise RegistrationError(
            f"{reply.what}: {name} is a placeholder (fake_auth_token_…): this server issues no tokens to write with. "
            "Use [influxdb] with a token made by hand"
        )
    if not TOKEN.fullmatch(value):
        raise RegistrationError(f"{reply.what}: {name} holds what no token holds (spaces, control characters, length)")
    return Secret(value)


def told_by(reply: Reply, record: Mapping[str, Any], *, written: bool = False) -> Told:
    """What a record says to its device. Its serverTime (ISO 8601, to the ms) goes to the clock, else the answer's Date:
    only answers that hold a record are the center's own beyond doubt.
    """
    unix_ns, resolution_ns = reply.answer.date_ns, 1_000_000_000
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(str(record.get("serverTime")))
        if moment.tzinfo is not None:
            unix_ns, resolution_ns = round(moment.timestamp() * 1000) * 1_000_000, 1_000_000
    if unix_ns is not None:
        reply.tell_time(unix_ns, resolution_ns, written=written)
    places: dict[str, str | None] = {}
    refused = []
    for name in ("url", "org", "bucket"):
        try:
            places[name] = _place(record.get(f"influx_{name}"), url=name == "url")
        except ValueError as error:
            places[name] = None
            refused.append(f"{reply.what}: influx_{name}: {error}")
    return Told(fields=record, refused=tuple(refused), **places)


def _place(value: object, *, url: bool) -> str | None:
    """None when it is not there or empty. ValueError for what cannot be one."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
        raise ValueError("not a string that can be one")
    return check_url(value) if url else value
