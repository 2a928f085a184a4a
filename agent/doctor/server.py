"""The doctor's look at what the servers say: the registration API, and the token and bucket by an empty write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from agent.config.settings import CenterSettings
from agent.delivery.trial import try_out
from agent.doctor.config import device_id
from agent.doctor.finding import Finding, Patient, failed, failed_by, ok, skipped, warning
from agent.doctor.network import host_and_port
from agent.mqtt.broker import attempt
from agent.registration.answers import (
    UNKNOWN_HERE,
    IndistinctError,
    NotRegisteredError,
    RegistrationError,
    SecretWantedError,
)
from agent.registration.client import CenterClient
from agent.registration.credentials import SECRET_FILE
from agent.registration.dialects import rehearse
from agent.registration.secret_files import CredentialsError, read_private
from agent.registration.target import client_cert
from agent.util.errors import AgentError
from agent.util.secret import Secret


def registration(patient: Patient) -> Iterator[Finding]:
    """Asks the center about this device without registering it (`?register=false`)."""
    name, settings = "registration", patient.settings
    if settings is None:
        yield skipped(name, "without the configuration the center is not known")
        return
    if settings.center is None:
        return  # a token given by hand needs none
    if host_and_port(settings.center.url) in patient.unreachable:
        yield skipped(name, "the center is not reached")
        return
    device = device_id(patient)
    if device is None:
        yield skipped(name, patient.hidden or "the device's id is not known")
        return
    has_token = patient.target is not None
    said = ((patient.running or {}).get("registration") or {}).get("error")
    if said:
        yield failed(name, f"the running agent says: {said}", "this comes before all else below")
        return
    try:
        with contextlib.closing(_client(patient, settings.center)) as center:
            known = rehearse(center, device, settings.center.api, patient.dialect)
    except NotRegisteredError:
        yield warning(name, f"{settings.center.url} does not know {device} yet", _how_to_register(settings.center))
    except SecretWantedError as error:
        if has_token:
            yield failed(name, str(error), UNKNOWN_HERE.format(id=device))
        else:
            seen = f"{device} has not registered from here, and {settings.center.url} tells nobody else of it"
            yield warning(name, seen, _how_to_register(settings.center))
    except IndistinctError as error:
        seen, remedy = str(error).rsplit(". ", 1)
        if has_token:
            yield warning(name, f"{seen}: the token here stays, and cannot be renewed", remedy)
        else:
            yield failed(name, seen, remedy)
    except (RegistrationError, CredentialsError) as error:
        yield failed_by(name, error, "is this the address of the center?")
    else:
        yield _answered(patient, settings.center.url, device, known=known)


def _how_to_register(settings: CenterSettings) -> str:
    remedy = "start the agent, or: iot-agent register"
    if settings.enrollment_key_file is None:
        remedy += "; where the center asks for an enrollment key, set [center] enrollment_key_file"
    return remedy


def _answered(patient: Patient, url: str, device: str, *, known: bool) -> Finding:
    """A center answers: whether that is worth anything depends on what is here."""
    name = "registration"
    if patient.target is not None:
        return ok(name, f"{url} knows {device}" if known else f"{url} answers; it cannot be asked about a device")
    if not known:
        seen = f"{url} answers, and nothing says that it is a center"
        return warning(name, seen, "are its address and port right? iot-agent register tells")
    if os.path.lexists(patient.state_dir / SECRET_FILE):
        return warning(
            name, f"{url} knows {device}, whose token is not here", "start the agent, or: iot-agent register"
        )
    return failed(
        name, f"{url} knows {device}, and nothing here is of that registration", UNKNOWN_HERE.format(id=device)
    )


def _client(patient: Patient, settings: CenterSettings) -> CenterClient:
    """With the device secret where there is one: none is made."""
    data = None
    with contextlib.suppress(CredentialsError):
        data = read_private(patient.state_dir / SECRET_FILE)
    secret = Secret(data.decode("ascii", "replace").strip() if data else "")
    return CenterClient(
        settings.url,
        secret,
        ca_file=settings.ca_file,
        client_cert=client_cert(settings),
        timeout_s=patient.timeout_s,
    )


def token(patient: Patient) -> Iterator[Finding]:
    """An empty write: InfluxDB answers as to a real one, and stores nothing."""
    name, target = "token and bucket", patient.target
    if target is None:
        yield skipped(name, "there is no token to try: see above")
        return
    if host_and_port(target.url) in patient.unreachable:
        yield skipped(name, f"{target.url} is not reached")
        return
    influx = patient.settings and patient.settings.influxdb
    again = "iot-agent register --force gets a new one"
    if influx:
        again = f"make a token that may write there and put it into {influx.token_file or 'agent.toml'}"
    trial = try_out(target, patient.timeout_s, again)
    yield ok(name, trial.seen) if trial.good else failed(name, trial.seen, trial.remedy)


def mqtt(patient: Patient) -> Iterator[Finding]:
    """A connection and login of its own, short, beside the running agent's."""
    name, settings = "MQTT", patient.settings and patient.settings.mqtt
    device = device_id(patient)
    if not settings or device is None:
        return
    host, port = settings.place
    said = ((patient.running or {}).get("mqtt") or {}).get("error")
    login = f" and the login of {settings.username}" if settings.username else ""
    try:
        attempt(settings, f"{device}-doctor", {})  # beside the running agent's
    except AgentError as error:
        yield failed_by(name, error, "mend [mqtt]")
    else:
        seen = f"{host}:{port} takes the connection{login}"
        yield warning(name, f"{seen}; the running agent says: {said}") if said else ok(name, seen)
