"""The device registration APIs in the wild, one class each: how to register, ask again, refresh and remove."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from agent.registration.answers import (
    UNKNOWN_HERE,
    IndistinctError,
    NotRegisteredError,
    NotThisApiError,
    Registration,
    RegistrationError,
    SecretWantedError,
    TokenWithheldError,
    Told,
    check_status,
    registration,
    told_by,
)
from agent.registration.client import CenterClient
from agent.util.secret import Secret


class Dialect:
    """One registration API. Methods raise RegistrationError, NotThisApiError where the server speaks another.

    What its answer calls the device's id and the token: `id_name`, `token_name`.
    """

    name: ClassVar[str]
    request: ClassVar[tuple[str, str]]
    id_name: ClassVar[str] = "deviceId"
    token_name: ClassVar[str] = "token"  # noqa: S105 - the name of a field
    hears: ClassVar[bool] = False
    """Whether a center of this kind may want to know what the device tells of itself."""

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

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        """Registers, or fetches what is registered. TokenWithheldError when the token does not come."""
        method, path = self.request
        reply = center.ask(method, f"{path}/{device_id}", enroll=True)
        check_status(reply, device_id)
        return registration(reply, reply.own(self.id_name, device_id), self.token_name)

    def refresh(self, center: CenterClient, device_id: str, telling: Mapping[str, Any] | None = None) -> Told | None:
        """The remote configuration, None where there is none; `telling` is what the device tells of itself to a center
        that hears it. NotRegisteredError when the center forgot the device, SecretWantedError where it is asked without
        a secret and wants one.
        """
        reply, id_name = None, "id"
        if self.hears and telling is not None:
            body = json.dumps(telling).encode()
            reply, id_name = center.ask("POST", f"/api/devices/{device_id}/configuration", body=body), self.id_name
        if reply is None or reply.status in (404, 405):  # an older center, or another one
            reply, id_name = center.ask("GET", f"/api/env/{device_id}?register=false"), "id"
        if reply.status in (404, 405) or (reply.status == 200 and reply.is_html()):
            return None
        if reply.status == 403 and b'"registered"' in reply.answer.body:
            raise NotRegisteredError(f"{reply.what}: the center does not know {device_id} any more")
        if reply.status == 401 and not center.has_secret:
            raise SecretWantedError(f"{reply.what}: 401: it tells nothing of {device_id} without its device secret")
        if reply.status != 200:
            raise reply.refused(UNKNOWN_HERE.format(id=device_id) if reply.status in (401, 403, 409) else "")
        return told_by(reply, reply.own(id_name, device_id))

    def check_distinct(self, center: CenterClient, device_id: str) -> None:
        """IndistinctError where removing this device could remove another one."""

    def unregister(self, center: CenterClient, device_id: str) -> bool:
        """Removes the registration and with it the authorization. False when the server has none."""
        self.check_distinct(center, device_id)
        reply = center.ask("DELETE", f"/api/devices/{device_id}")
        if reply.status == 404:
            return False
        if reply.status == 403:
            raise reply.refused(f"{device_id} is not registered there, or by another device secret")
        if reply.status == 409:
            raise reply.refused(UNKNOWN_HERE.format(id=device_id))
        if not 200 <= reply.status < 300:
            raise reply.refused()
        return True


class IotCenter(Dialect):
    """POST /api/devices/ID → {deviceId, createdAt, key, token}; ours adds where to write and the configuration."""

    name = "iot-center"
    request = "POST", "/api/devices"
    hears = True


class IotCenterV2(Dialect):
    """GET /api/env/ID, which registers unless told not to. Its influx_url wins over its write_endpoint."""

    name = "iot-center-v2"
    request = "GET", "/api/env"
    id_name, token_name = "id", "influx_token"

    def check_distinct(self, center: CenterClient, device_id: str) -> None:
        """That server finds authorizations by prefix: removing pi-1 could remove pi-10's. So it is asked first."""
        listed = center.ask("GET", "/api/devices")
        if listed.status == 200 and not listed.is_html():
            for item in listed.records():
                other = item.get("deviceId")
                if isinstance(other, str) and other != device_id and other.startswith(device_id):
                    raise IndistinctError(
                        f"the center cannot tell {device_id} from {other[:64]!r}, which begins the same: removing the "
                        "one could remove the other. Choose another [device] id"
                    )


class IotApi(Dialect):
    """The tutorial's JS server: POST /api/devices/create with JSON as text, then GET /api/devices/ID → a list."""

    name = "iot-api"

    def ask(self, center: CenterClient, device_id: str) -> Registration:
        made = center.ask("POST", "/api/devices/create", enroll=True, body=json.dumps({"deviceId": device_id}).encode())
        if not made.already_registered():
            check_status(made, device_id)
        reply = center.ask("GET", f"/api/devices/{device_id}")
        check_status(reply, device_id)
        found = reply.records()
        own = [item for item in found if item.get("deviceId") == device_id]
        if not own:
            raise RegistrationError(f"{reply.what}: a list of {len(found)} devices without {device_id}")
        newest = max(own, key=lambda item: str(item.get("updatedAt")))
        return registration(reply, newest, self.token_name)

    def refresh(self, *_: Any) -> Told | None:
        """It has none."""
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


def rehearse(center: CenterClient, device_id: str, api: str, known: str | None) -> bool:
    """What register() and renewing would meet, as far as that is seen without registering; `known` as there.

    Whether the center says anything about the device. Raises the errors that they would: NotRegisteredError where it is
    not registered yet.
    """
    told = DIALECTS["iot-center-v2"].refresh(center, device_id)
    name = api if api != "auto" else known
    if name is None and told is not None and "write_endpoint" in told.fields:  # only iot-center-v2 says that
        name = "iot-center-v2"
    if name is not None:
        DIALECTS[name].check_distinct(center, device_id)
    return told is not None
