"""The device registration APIs in the wild, one class each: how to register, ask again, refresh and remove."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from agent.center_client import NotThisApiError, RegistrationError
from agent.secret import Secret
from agent.target import check_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.center_client import Answer, CenterClient

_TOKEN = re.compile(r"[!-~]{1,1024}")
PLACEHOLDER = "fake_auth_token"
LOST_SECRET = (
    "this device's secret was lost, or another board has the same id. An administrator of the center must remove {id} "  # noqa: S105 - a message
    "there; then it registers by itself. Or choose another [device] id"
)


class TokenWithheldError(RegistrationError):
    """The device is registered, and the server does not hand out the token (again)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What an answer said, checked. `fields` are the raw numbers for remote.accept, `url` … None where not said."""

    token: Secret
    key: str = ""
    url: str | None = None
    org: str | None = None
    bucket: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a center says to a device that is registered: None and missing where it does not."""

    url: str | None
    org: str | None
    bucket: str | None
    fields: Mapping[str, Any] = field(repr=False)
    refused: tuple[str, ...] = ()


class Dialect(ABC):
    """One registration API. Methods raise RegistrationError, NotThisApiError where the server speaks another."""

    name: ClassVar[str]

    def register(self, center: CenterClient, device_id: str, stale: Secret | None = None) -> Registration:
        """A registration with a usable token. `stale` is a token known to be refused: the same again does not count.

        A server that withholds the token of a registered device (iot-center-v2 with InfluxDB 2.9 answers 200 with an
        empty one) is mended by removing the registration and asking once more; once, then it is an error.
        """
        try:
            found = self.ask(center, device_id)
        except TokenWithheldError:
            pass
        else:
            if stale is None or found.token != stale:
                return found
        self.unregister(center, device_id)
        return self.ask(center, device_id)

    @abstractmethod
    def ask(self, center: CenterClient, device_id: str) -> Registration:
        """Registers, or fetches what is registered. TokenWithheldError when the token does not come."""

    def refresh(self, center: CenterClient, device_id: str) -> Refresh | None:
        """The remote configuration, None where there is none. NotRegisteredError when the center forgot the device."""
        answer = center.ask("GET", f"/api/env/{quote(device_id, safe='')}?register=false")
        if answer.status in (404, 405) or (answer.status == 200 and answer.is_html()):
            return None
        if answer.status == 403 and b'"registered"' in answer.body:
            raise NotRegisteredError(f"{answer.what}: the center does not know {device_id} any more")
        if answer.status != 200:
            raise answer.refused()
        record = answer.record()
        _check_own(answer, record, "id", device_id)
        _tell_time(center, record)
        found: dict[str, str | None] = {}
        refused: list[str] = []
        for name in ("influx_url", "influx_org", "influx_bucket"):
            try:
                found[name] = _place(answer, record, name)
            except RegistrationError as error:
                found[name] = None
                refused.append(f"{error}: the old one stays")
        return Refresh(found["influx_url"], found["influx_org"], found["influx_bucket"], record, tuple(refused))

    def unregister(self, center: CenterClient, device_id: str) -> bool:
        """Removes the registration and with it the authorization. False when the server has none."""
        answer = center.ask("DELETE", f"/api/devices/{quote(device_id, safe='')}")
        if answer.status == 404:
            return False
        if answer.status == 409:
            raise answer.refused(LOST_SECRET.format(id=device_id))
        if not 200 <= answer.status < 300:
            raise answer.refused()
        return True


class NotRegisteredError(RegistrationError):
    """The center answers that it has no registration of this device."""


class IotCenter(Dialect):
    """POST /api/devices/ID → {deviceId, createdAt, key, token}; ours adds where to write and the configuration."""

    name = "iot-center"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        answer = center.ask("POST", f"/api/devices/{quote(device_id, safe='')}", enroll=True)
        _check_status(answer, device_id)
        record = answer.record()
        _check_own(answer, record, "deviceId", device_id)
        return _registration(center, answer, record, "token", "key")


class IotCenterV2(Dialect):
    """GET /api/env/ID, which registers unless told not to. Its influx_url wins over its write_endpoint."""

    name = "iot-center-v2"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        answer = center.ask("GET", f"/api/env/{quote(device_id, safe='')}", enroll=True)
        _check_status(answer, device_id)
        record = answer.record()
        _check_own(answer, record, "id", device_id)
        return _registration(center, answer, record, "influx_token", None)

    def unregister(self, center: CenterClient, device_id: str) -> bool:
        """That server finds authorizations by prefix: removing pi-1 could remove pi-10's. So it is asked first."""
        listed = center.ask("GET", "/api/devices")
        if listed.status == 200 and not listed.is_html():
            for item in listed.json():
                other = item.get("deviceId") if isinstance(item, dict) else None
                if isinstance(other, str) and other != device_id and other.startswith(device_id):
                    raise RegistrationError(
                        f"the center cannot tell {device_id} from {other[:64]!r}, which begins the same: removing the "
                        "one could remove the other. Choose another [device] id"
                    )
        return super().unregister(center, device_id)


class IotApi(Dialect):
    """The tutorial's JS server: POST /api/devices/create with JSON as text, then GET /api/devices/ID → a list."""

    name = "iot-api"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        made = center.ask("POST", "/api/devices/create", enroll=True, body=json.dumps({"deviceId": device_id}).encode())
        if not _already_registered(made):
            _check_status(made, device_id)
        answer = center.ask("GET", f"/api/devices/{quote(device_id, safe='')}")
        _check_status(answer, device_id)
        found = answer.json()
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise NotThisApiError(f"{answer.what}: {answer.status} with JSON that is no list of devices")
        own = [item for item in found if item.get("deviceId") == device_id]
        if not own:
            raise RegistrationError(f"{answer.what}: a list of {len(found)} devices without {device_id}")
        newest = max(own, key=lambda item: str(item.get("updatedAt")))
        return _registration(center, answer, newest, "token", "key")

    def refresh(self, center: CenterClient, device_id: str) -> Refresh | None:  # noqa: ARG002 - it has none
        return None

    def unregister(self, center: CenterClient, device_id: str) -> bool:
        try:
            return super().unregister(center, device_id)
        except RegistrationError as error:
            raise RegistrationError(
                f"{error}: this server cannot remove a device; remove its token in InfluxDB"
            ) from None


DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (IotCenter(), IotCenterV2(), IotApi())}


def register(
    center: CenterClient, device_id: str, api: str, known: str | None = None, stale: Secret | None = None
) -> tuple[Dialect, Registration]:
    """By the named `api`; "auto" takes the one that was found before (`known`), then tries all in order.

    RegistrationError when it is none of them.
    """
    if api != "auto":
        return DIALECTS[api], DIALECTS[api].register(center, device_id, stale)
    tried = []
    for dialect in sorted(DIALECTS.values(), key=lambda other: other.name != known):
        try:
            return dialect, dialect.register(center, device_id, stale)
        except NotThisApiError as error:
            tried.append(str(error))
    raise RegistrationError(f"{center.url} is no device registration API that is known here ({'; '.join(tried)})")


def _already_registered(answer: Answer) -> bool:
    return (
        answer.status == 500
        and re.search(rb"already (?:registered|exists|has an)", answer.body, re.IGNORECASE) is not None
    )


def _check_status(answer: Answer, device_id: str) -> None:
    """Raises the error that the status stands for; returns for 200 and 201 with something that is not HTML."""
    if answer.status in (200, 201):
        if answer.is_html():
            raise NotThisApiError(str(_html(answer)))
        return
    if answer.status in (404, 405, 501):
        raise NotThisApiError(f"{answer.what}: {answer.status}")
    if _already_registered(answer):
        raise TokenWithheldError(f"{answer.what}: {answer.message()}")
    if answer.status == 409 and answer.retry_after_s() is None:
        raise answer.refused(LOST_SECRET.format(id=device_id))
    if answer.status in (401, 403):
        raise answer.refused("the first registration needs the administrator's key: set [center] enrollment_key_file")
    raise answer.refused()


def _html(answer: Answer) -> RegistrationError:
    return RegistrationError(f"{answer.what}: {answer.status} with HTML, not JSON: it begins {answer.excerpt(60)}")


def _check_own(answer: Answer, record: Mapping[str, Any], name: str, device_id: str) -> None:
    if name not in record:
        raise NotThisApiError(f"{answer.what}: {answer.status} with a JSON object without {name}")
    if record[name] != device_id:
        raise RegistrationError(
            f"{answer.what}: the answer is for {str(record[name])[:64]!r}, not for {device_id}: nothing of it is used"
        )


def _registration(
    center: CenterClient, answer: Answer, record: Mapping[str, Any], token_name: str, key_name: str | None
) -> Registration:
    _tell_time(center, record)
    key = record.get(key_name) if key_name else None
    return Registration(
        token=_token(answer, record.get(token_name), token_name),
        key=key[:200] if isinstance(key, str) else "",
        url=_place(answer, record, "influx_url"),
        org=_place(answer, record, "influx_org"),
        bucket=_place(answer, record, "influx_bucket"),
        fields=record,
    )


def _token(answer: Answer, value: object, name: str) -> Secret:
    """A token that can be used. What came instead is described, never shown."""
    if value is None or value == "":
        raise TokenWithheldError(f"{answer.what}: {answer.status} with an empty {name}: registered, but not handed out")
    if not isinstance(value, str):
        raise RegistrationError(f"{answer.what}: {name} is a JSON {type(value).__name__}, not a string")
    if value.startswith(PLACEHOLDER):
        raise RegistrationError(
            f"{answer.what}: {name} is a placeholder (fake_auth_token_…): this server issues no tokens to write with. "
            "Use [influxdb] with a token made by hand"
        )
    if not _TOKEN.fullmatch(value):
        raise RegistrationError(f"{answer.what}: {name} holds what no token holds (spaces, control characters, length)")
    return Secret(value)


def _place(answer: Answer, record: Mapping[str, Any], name: str) -> str | None:
    """influx_url, influx_org or influx_bucket of the answer; None when it is not there or empty."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
        raise RegistrationError(f"{answer.what}: {name} is not a string that can be one")
    if name != "influx_url":
        return value
    try:
        return check_url(value)
    except ValueError as error:
        raise RegistrationError(f"{answer.what}: influx_url: {error}") from None


def _tell_time(center: CenterClient, record: Mapping[str, Any]) -> None:
    """ServerTime (ISO 8601, to the ms) to the clock."""
    text = record.get("serverTime")
    if not isinstance(text, str):
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return
    if moment.tzinfo is not None:
        center.tell_time(round(moment.timestamp() * 1000) * 1_000_000, 1_000_000)
