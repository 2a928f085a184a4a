"""The device registration APIs in the wild, one class each: how to register, ask again, refresh and remove."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from agent.registration.answers import (
    UNKNOWN_HERE,
    NotRegisteredError,
    Refresh,
    Registration,
    TokenWithheldError,
    already_registered,
    check_own,
    check_status,
    place,
    registration,
    tell_time,
)
from agent.registration.client import NotThisApiError, RegistrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.registration.client import CenterClient
    from agent.util.secret import Secret


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
        found = self.ask(center, device_id)
        if stale is not None and found.token == stale:
            raise RegistrationError(
                f"{center.url} gives the refused token again, also after DELETE: remove {device_id} there by hand"
            )
        return found

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
            raise answer.refused(UNKNOWN_HERE.format(id=device_id) if answer.status in (401, 403, 409) else "")
        record = answer.record()
        check_own(answer, record, "id", device_id)
        tell_time(center, record)
        found: dict[str, str | None] = {}
        refused: list[str] = []
        for name in ("influx_url", "influx_org", "influx_bucket"):
            try:
                found[name] = place(answer, record, name)
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
            raise answer.refused(UNKNOWN_HERE.format(id=device_id))
        if not 200 <= answer.status < 300:
            raise answer.refused()
        return True


class IotCenter(Dialect):
    """POST /api/devices/ID → {deviceId, createdAt, key, token}; ours adds where to write and the configuration."""

    name = "iot-center"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        answer = center.ask("POST", f"/api/devices/{quote(device_id, safe='')}", enroll=True)
        check_status(answer, device_id)
        record = answer.record()
        check_own(answer, record, "deviceId", device_id)
        return registration(center, answer, record, "token", "key")


class IotCenterV2(Dialect):
    """GET /api/env/ID, which registers unless told not to. Its influx_url wins over its write_endpoint."""

    name = "iot-center-v2"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        answer = center.ask("GET", f"/api/env/{quote(device_id, safe='')}", enroll=True)
        check_status(answer, device_id)
        record = answer.record()
        check_own(answer, record, "id", device_id)
        return registration(center, answer, record, "influx_token", None)

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
        if not already_registered(made):
            check_status(made, device_id)
        answer = center.ask("GET", f"/api/devices/{quote(device_id, safe='')}")
        check_status(answer, device_id)
        found = answer.json()
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise NotThisApiError(f"{answer.what}: {answer.status} with JSON that is no list of devices")
        own = [item for item in found if item.get("deviceId") == device_id]
        if not own:
            raise RegistrationError(f"{answer.what}: a list of {len(found)} devices without {device_id}")
        newest = max(own, key=lambda item: str(item.get("updatedAt")))
        return registration(center, answer, newest, "token", "key")

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
