"""The doctor's look at what the servers say: the registration API, and the token and bucket by an empty write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent.config.limits import check_id
from agent.config.settings import CenterSettings
from agent.delivery.writer import Writer
from agent.doctor.finding import Finding, Patient, failed, failed_by, ok, skipped, warning
from agent.doctor.network import host_and_port
from agent.registration.answers import NotRegisteredError, RegistrationError
from agent.registration.client import CenterClient
from agent.registration.credentials import SECRET_FILE, CredentialsError, read_private
from agent.registration.device_id import ID_FILE, derive
from agent.registration.dialects import DIALECTS
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
    device = _device_id(patient)
    if device is None:
        yield skipped(name, patient.hidden or "the device's id is not known")
        return
    try:
        with contextlib.closing(_client(patient, settings.center)) as center:
            found = DIALECTS["iot-center-v2"].refresh(center, device)
    except NotRegisteredError:
        remedy = "start the agent, or: iot-agent register"
        if settings.center.enrollment_key_file is None:
            remedy += "; where the center asks for an enrollment key, set [center] enrollment_key_file"
        yield warning(name, f"{settings.center.url} does not know {device} yet", remedy)
    except (RegistrationError, CredentialsError) as error:
        yield failed_by(name, error, "is this the address of the center?")
    else:
        known = f"{settings.center.url} knows {device}"
        yield ok(name, known if found else f"{settings.center.url} answers; it cannot be asked about a device")


def _client(patient: Patient, settings: CenterSettings) -> CenterClient:
    """With the device secret where there is one: none is made."""
    data = None
    with contextlib.suppress(CredentialsError):
        data = read_private(patient.state_dir / SECRET_FILE)
    secret = Secret(data.decode("ascii", "replace").strip() if data else "")
    return CenterClient(settings.url, secret, ca_file=settings.ca_file, timeout_s=patient.timeout_s)


def _device_id(patient: Patient) -> str | None:
    """As the agent would find it, without keeping a derived one."""
    if patient.settings and patient.settings.device.id:
        return patient.settings.device.id
    if patient.running:
        return str(patient.running["device_id"])
    try:
        return check_id((patient.state_dir / ID_FILE).read_text("ascii").strip())
    except (FileNotFoundError, ValueError):
        return derive()
    except OSError:
        return None


def token(patient: Patient) -> Iterator[Finding]:
    """An empty write: InfluxDB answers as to a real one, and stores nothing."""
    name, target = "token and bucket", patient.target
    if target is None:
        yield skipped(name, "there is no token to try: see above")
        return
    if host_and_port(target.url) in patient.unreachable:
        yield skipped(name, f"{target.url} is not reached")
        return
    writer = Writer(target, patient.timeout_s)
    try:
        answer = writer.write(b"")
    finally:
        writer.close()
    where = f"bucket {target.bucket!r} of organization {target.org!r} at {target.url}"
    influx = patient.settings and patient.settings.influxdb
    again = "iot-agent register --force gets a new one"
    if influx:
        again = f"make a token that may write there and put it into {influx.token_file or 'agent.toml'}"
    if answer.status == 204:
        yield ok(name, f"the token may write to {where}")
    elif answer.status == 401:
        yield failed(name, f"the token is not known at {target.url} (401): it was revoked or mistyped", again)
    elif answer.status == 403:
        yield failed(name, f"the token may not write to {where} (403): it is inactive or for another bucket", again)
    elif answer.status == 404:
        remedy = "make the bucket, or mend its name and the organization's in the configuration; points are kept"
        yield failed(name, f"there is no {where} (404)", remedy)
    elif answer.status is None:
        yield failed(name, f"{target.url} gives no answer: {answer.error}", "is this the address of an InfluxDB?")
    else:
        text = f"{target.url} answers {answer.status}: {answer.body[:200].decode('utf-8', 'replace')!r}"
        yield failed(name, text, "is this the address of an InfluxDB? See its log")
