"""The doctor's look at the configuration, the state folder and the secrets at rest."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.config.limits import check_id
from agent.config.parse import load_settings
from agent.config.settings import CenterSettings, InfluxSettings
from agent.doctor.finding import Finding, Patient, failed, failed_by, ok, skipped, warning
from agent.registration.answers import RegistrationError
from agent.registration.credentials import CREDENTIALS_FILE, SECRET_FILE, Credentials
from agent.registration.device_id import ID_FILE, derive, state_folder_warning
from agent.registration.policy import target_of
from agent.registration.secret_files import CredentialsError, read_private, read_secret_file
from agent.registration.static_token import CREDENTIAL, target_by_hand
from agent.registration.target import client_cert
from agent.status.socket import ask
from agent.util.atomic import read_regular
from agent.util.errors import AgentError

SUDO = "run it as that user: sudo iot-agent doctor"
REGISTER = "start the agent, or: iot-agent register"


def configuration(patient: Patient) -> Iterator[Finding]:
    name = "configuration"
    try:
        settings = load_settings(patient.config)
    except AgentError as error:
        if isinstance(error.__cause__, PermissionError):
            yield warning(name, f"{patient.config} may not be read by {_user(os.geteuid())}", SUDO)
        elif isinstance(error.__cause__, FileNotFoundError):
            yield failed(name, f"there is no {patient.config}", "make one: iot-agent init; or name another: --config")
        else:
            yield failed(name, str(error), f"mend {patient.config}, then: iot-agent check --config {patient.config}")
        return
    patient.settings = settings
    for text in settings.warnings:
        yield warning(name, text)
    goal = settings.center or settings.influxdb
    assert goal is not None  # load_settings() sees to it
    yield ok(name, f"{patient.config} is right: {len(settings.sensor)} sensor(s), points go to {goal.url}")


def state_folder(patient: Patient) -> Iterator[Finding]:
    """Also finds out whether an agent runs on it, which the later checks need."""
    name, folder = "state folder", patient.state_dir
    try:
        found = folder.stat()
    except FileNotFoundError:
        yield warning(name, f"{folder} is not there yet", "it is made at the first start; or name it: --state-dir")
        return
    except PermissionError:
        patient.hidden = f"{folder} may not be looked into by {_user(os.geteuid())}"
        yield warning(name, patient.hidden, SUDO)
        return
    if not stat.S_ISDIR(found.st_mode):
        patient.hidden = f"{folder} is not a folder"
        yield failed(name, patient.hidden, "name a folder: --state-dir")
        return
    owner = _user(found.st_uid)
    if not os.access(folder, os.R_OK | os.X_OK):
        patient.hidden = f"{folder} belongs to {owner}, and this is {_user(os.geteuid())}"
        yield warning(name, f"{patient.hidden}: what is in it could not be seen", SUDO)
    else:
        try:
            patient.running = ask(folder)
        except (OSError, AgentError) as error:
            patient.hidden = str(error)
            yield failed(name, patient.hidden, "sudo systemctl restart iot-agent; see journalctl -u iot-agent")
    if text := state_folder_warning(folder):
        yield warning(name, text, "move it to a partition of its own: deploy/README.md, read-only root")
    if found.st_mode & 0o077:
        yield failed(name, f"{folder} can be entered by others ({stat.filemode(found.st_mode)})", f"chmod 700 {folder}")
    elif patient.hidden is None:
        runs = f"the agent runs on it (process {patient.running['pid']})" if patient.running else "no agent runs on it"
        yield ok(name, f"{folder} belongs to {owner} alone; {runs}")


def secrets(patient: Patient) -> Iterator[Finding]:
    """Files that hold secrets are there, and nobody else can read them. Finds the target for the later checks."""
    name, settings, folder = "secrets", patient.settings, patient.state_dir
    if settings is None:
        yield skipped(name, "without the configuration it is not known which are needed")
        return
    if settings.influxdb:
        influx = settings.influxdb
        try:
            token = influx.token or read_secret_file(influx.token_file, CREDENTIAL)
        except CredentialsError as error:
            yield from _unreadable(name, influx.token_file, error)
            return
        if token is None:
            yield failed(name, "there is no token", "set [influxdb] token_file to a file that holds one")
            return
        patient.target = target_by_hand(influx, token)
        yield from _client_key(influx)
        yield ok(name, f"the token is in {'the configuration' if influx.token else influx.token_file}")
        return
    assert settings.center is not None
    yield from _client_key(settings.center)
    try:
        read_secret_file(settings.center.enrollment_key_file, "enrollment.key")
    except CredentialsError as error:
        yield from _unreadable(name, settings.center.enrollment_key_file, error)
    if patient.hidden and patient.running is None:
        yield skipped(name, patient.hidden)
        return
    try:
        secret = read_private(folder / SECRET_FILE)
        data = read_private(folder / CREDENTIALS_FILE)
        stored = Credentials.decode(data) if data is not None else None
        if stored and (stored.center, stored.device_id) == (settings.center.url, device_id(patient)):
            patient.dialect = stored.dialect
            patient.target = target_of(settings.center, stored)
    except (CredentialsError, RegistrationError) as error:
        yield failed_by(name, error, str(error))
        return
    except ValueError as error:
        text = f"{folder / CREDENTIALS_FILE} is damaged: {error}"
        yield failed(name, text, "nothing: the agent sets it aside and registers again")
        return
    if secret is None and stored is None:
        yield warning(name, "there are none yet: this device has not registered", REGISTER)
    elif secret is None:
        yield failed(
            name,
            f"{folder / SECRET_FILE} is gone, by which the center knows this board",
            "have the center's administrator remove this device there; it registers again by itself",
        )
    elif patient.target is None:
        yield warning(name, "there is no token for this center yet", REGISTER)
    else:
        yield ok(name, "token and device secret are there, readable for their owner only")


def device_id(patient: Patient) -> str | None:
    """As the agent would find it, without keeping a derived one."""
    if patient.settings and patient.settings.device.id:
        return patient.settings.device.id
    if patient.running:
        return str(patient.running["device_id"])
    try:
        return check_id(read_regular(patient.state_dir / ID_FILE, 1000).decode("ascii").strip())
    except (FileNotFoundError, ValueError):
        return derive()
    except OSError:
        return None


def _client_key(section: CenterSettings | InfluxSettings) -> Iterator[Finding]:
    """The key of a client certificate is a secret, and has to be readable."""
    for path in dict.fromkeys(client_cert(section) or ()):
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            yield failed("secrets", f"{path}: {error.strerror}", "mend client_cert and client_key")
            continue
        if not os.access(path, os.R_OK):
            yield warning("secrets", f"{path} may not be read by {_user(os.geteuid())}", SUDO)
        elif path == (section.client_key or section.client_cert) and mode & 0o007:
            text = f"{path} holds a key and can be read by others ({stat.filemode(mode)})"
            yield failed("secrets", text, f"chmod o= {path}")


def _unreadable(name: str, path: str | None, error: CredentialsError) -> Iterator[Finding]:
    if path and isinstance(error.__cause__, PermissionError):
        yield warning(name, f"{path} may not be read by {_user(os.geteuid())}", SUDO)
    else:
        yield failed_by(name, error, str(error))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
