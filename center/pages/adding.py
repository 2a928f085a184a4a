"""Adding a device: its name, what it takes to join from the device's own end, and waiting for its first point."""

from __future__ import annotations

import re
import secrets
import shlex
import unicodedata
from dataclasses import replace
from typing import Any

import segno
from flask import redirect, render_template, request, url_for
from markupsafe import Markup

from center.context import current_center
from center.documents import FieldsError
from center.errors import ConflictError
from center.guard import LOOPBACK_HOSTS, host_trusted
from center.pages.blueprint import administrators_only, pages, shown_once
from center.pages.forms import BY_HAND, AddDevice
from center.profiles import Profile, keep_profile, profiles
from center.security import is_open
from center.stores.registry import EnrollmentKey, Registry
from center.stores.telemetry import HOUR_NS, LOOK_BACK_NS
from center.times import now_ns

KEY_NS = HOUR_NS


def suggested_id(name: str) -> str:
    """An id that looks like the name: `Gewächshaus 3` → `gewachshaus-3`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:64]


@pages.route("/add", methods=["GET", "POST"])
@administrators_only
def add() -> Any:
    """Name a device; the answer shows once its key, or the token of what is no agent of ours."""
    registry, form = current_center().registry, AddDevice()
    known = profiles(registry)
    if form.validate_on_submit():
        wanted = form.device_id.data or suggested_id(form.name.data) or f"device-{secrets.token_hex(3)}"
        profile = replace(known.get(wanted, Profile()), name=form.name.data, group=form.group.data or "")
        if registry.device(wanted) is not None:
            form.device_id.errors = [f"{wanted} is registered already: choose another id, or open its page."]
        else:
            try:
                keep_profile(registry, wanted, profile)
                if form.sensor.data == BY_HAND:
                    return shown_once(registry.register(wanted, administrator=True))
            except FieldsError as error:
                for field, why in error.each.items():
                    form[field].errors = [f"{why}."]
            except ConflictError as error:
                form.device_id.errors = [str(error)]
            else:
                return _offered(wanted, form.sensor.data)
    groups = sorted({profile.group for profile in known.values()} - {""})
    return render_template("add.html", form=form, groups=groups), 400 if form.errors else 200


@pages.route("/add/<device_id>", methods=["GET", "POST"])
@administrators_only
def adding(device_id: str) -> Any:
    """How far it has come, without its key; then its page. A POST gives it another key."""
    center = current_center()
    device = center.registry.device(device_id)
    if device and center.telemetry.last_values([device_id], since_ns=now_ns() - LOOK_BACK_NS):
        return redirect(url_for("pages.device", device_id=device_id))
    sensor = request.values.get("sensor", "")
    if request.method == "POST" and device is None:
        return _offered(device_id, sensor)
    key = next(iter(_keys(center.registry, device_id)), None)
    return _page(device_id, sensor, registered=device is not None, expires_ns=key.expires_ns if key else None)


def _keys(registry: Registry, device_id: str) -> list[EnrollmentKey]:
    """Those that were made here for this device, the newest first."""
    return [key for key in registry.enrollment_keys() if key.note == _note(device_id)]


def _note(device_id: str) -> str:
    return f"Device {device_id}"


def _offered(device_id: str, sensor: str) -> tuple[str, int]:
    """The page with what the device needs, and a key in the place of one that it had, where keys are asked for."""
    registry, now = current_center().registry, now_ns()
    if is_open():
        return _page(device_id, sensor, offered=True), 201
    before = _keys(registry, device_id)
    for old in before:
        if old.valid(now):
            registry.revoke_enrollment_key(old.id)
    key, secret = registry.make_enrollment_key(note=_note(device_id), expires_ns=now + KEY_NS, device_id=device_id)
    return _page(
        device_id, sensor, offered=True, key=secret.reveal(), expires_ns=key.expires_ns, again=bool(before)
    ), 201


def _page(
    device_id: str,
    sensor: str,
    *,
    offered: bool = False,
    key: str = "",
    expires_ns: int | None = None,
    registered: bool = False,
    again: bool = False,
) -> str:
    center = current_center()
    url = (center.settings.server.public_url or request.url_root).rstrip("/")
    command = f"sudo iot-agent init --center {shlex.quote(url)} --device-id {device_id}"
    if sensor:
        command += f" --sensor {shlex.quote(sensor)}"
    if again:  # in the place of what the command with the key before wrote
        command += " --force"
    if key:  # by a command of the shell's own, so in no list of processes
        command = f"echo {key} | {command} --key-file -"
    file = render_template("boot.toml.txt", device_id=device_id, sensor=sensor or "bme280", url=url, key=key)
    return render_template(
        "adding.html",
        device_id=device_id,
        sensor=sensor,
        offered=offered,
        key=key,
        expires_ns=expires_ns,
        expired=expires_ns is not None and expires_ns <= now_ns(),
        open_center=is_open(),
        registered=registered,
        command=command,
        qr=_qr(command) if key else "",
        file=file,
        misled=not center.settings.loopback and host_trusted(request.host, list(LOOPBACK_HOSTS)),
    )


def _qr(text: str) -> Markup:
    """As an inline SVG, black on white for every camera."""
    drawn = segno.make(text).svg_inline(svgclass="qr", lineclass=None, omitsize=True, light="#fff")
    return Markup(drawn)  # noqa: S704 - a drawing of the text, not the text
