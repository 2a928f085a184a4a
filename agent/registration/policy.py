"""What a registration comes to: the target it stands for, its warnings, its status. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal
from urllib.parse import urlsplit

from agent.config.settings import CenterSettings
from agent.registration.answers import RegistrationError, Told
from agent.registration.credentials import Credentials
from agent.registration.device_id import state_folder_warning
from agent.registration.remote_config import RemoteConfiguration, accept
from agent.registration.target import Target, client_cert, has_private_authority, plain_http_warning
from agent.util.backoff import BASE_S, CAP_S, full_jitter, growing
from agent.util.proxy import is_loopback

LASTED_S = 600.0
RENEWAL_S = (10.0, 3600.0)
RETRY_RENEWAL_S = 10.0
RegistrationState = Literal["registering", "registered", "renewing", "failing", "waiting", "refused"]


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """For status, metrics and the local page; nothing secret in it. Times are seconds."""

    state: RegistrationState
    since_s: float
    error: str | None
    attempts: int
    next_attempt_s: float | None
    dialect: str | None
    device_id: str
    url: str | None
    org: str | None
    bucket: str | None
    remote: RemoteConfiguration
    refused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    renewals: int = 0


def renewal_wait_s(now: float, got_at: float | None, renewed_at: float | None, short: int, rng: Random) -> float:
    """Seconds until a refused token may be renewed: 10 s after the last renewal, twice as long for each that did not
    help. A new token that is refused may have been issued just before its bucket was made anew: three renewals fit into
    a minute, nine into the first hour.

    `got_at` is when the refused token came, `renewed_at` when the last renewal did (None: not by this process), `short`
    how many tokens in a row lasted under LASTED_S. The first refusal soon after a registration waits a few seconds:
    another registration may just have won.
    """
    soon = got_at is not None and now - got_at < LASTED_S
    wait = full_jitter(2, 1.0, 5.0, rng) if soon else 0.0
    if renewed_at is None:
        return wait
    pause = growing(short - 1, *RENEWAL_S)
    return max(wait, renewed_at + pause * rng.uniform(1, 1.2) - now)


def failure_wait_s(error: Exception, attempts: int, renewing: bool, rng: Random) -> float:
    """Seconds until the next try after `attempts` failures: what the center asks for, else 1 s to 5 min, spread out.

    A try to renew that failed has made no token: it is repeated like another, only never at once.
    """
    if isinstance(error, RegistrationError) and error.retry_after_s is not None:
        wait = error.retry_after_s + full_jitter(1, 1.0, 2.0, rng)
    else:
        wait = full_jitter(max(1, attempts), BASE_S, CAP_S, rng)
    return max(wait, RETRY_RENEWAL_S if renewing else 1.0)


def target_of(settings: CenterSettings, credentials: Credentials) -> Target:
    """Where to write: what agent.toml names wins, unless `remote = "prefer"`.

    RegistrationError for what is missing, and for plain http that neither agent.toml nor a center without TLS names.
    The CA and the client certificate for the center are used for an InfluxDB on the same host or one that no public CA
    certifies.
    """
    chosen: dict[str, str] = {}
    for name in ("url", "org", "bucket"):
        local, remote = getattr(settings, f"influx_{name}"), getattr(credentials, name)
        value = (remote or local) if settings.remote == "prefer" else (local or remote)
        if not value:
            raise RegistrationError(
                f"registered, but the center does not say influx_{name}: set it in [center] of agent.toml"
            )
        chosen[name] = value
    there, center = urlsplit(chosen["url"]), urlsplit(settings.url)
    allowed = (settings.influx_url or "").rstrip("/") == chosen["url"].rstrip("/")
    if settings.require_tls and there.scheme != "https":
        raise RegistrationError(
            f"{chosen['url']} is plain http, and [center] require_tls is set: nothing is sent there"
        )
    if center.scheme == "https" and there.scheme != "https" and not allowed:
        raise RegistrationError(
            f"the center has https and says to write to {chosen['url']}, where the token could be read on the way: "
            f'nothing is sent there. Have it name an https address, or set influx_url = "{chosen["url"]}" in [center]'
        )
    target = Target(chosen["url"], chosen["org"], chosen["bucket"], credentials.token)
    if there.hostname == center.hostname or has_private_authority(there.hostname or ""):
        target = replace(target, ca_file=settings.ca_file, client_cert=client_cert(settings))
    return target


def warnings_of(settings: CenterSettings, folder: Path, target: Target | None) -> tuple[str, ...]:
    """What an administrator should know, though it works."""
    found = [state_folder_warning(folder), plain_http_warning(settings.url)]
    if target is not None:
        if target.url != settings.url:
            found.append(plain_http_warning(target.url))
        here, center = urlsplit(target.url).hostname or "", urlsplit(settings.url).hostname or ""
        if is_loopback(here) and not is_loopback(center):
            found.append(
                f"the center says to write to {target.url}, which is this very board: tell the center its public "
                "address, or set influx_url in [center]"
            )
    return tuple(text for text in found if text)


def refreshed(old: Credentials, told: Told) -> tuple[Credentials, tuple[str, ...]]:
    """The credentials after what the center says, and a sentence for each value that was refused."""
    remote, refused = accept(told.fields, old.remote)
    new = replace(
        old, url=told.url or old.url, org=told.org or old.org, bucket=told.bucket or old.bucket, remote=remote
    )
    return new, (*refused, *(f"{text}: the old one stays" for text in told.refused))


def changes(old: Credentials, new: Credentials) -> list[str]:
    """The differences, for a log line."""
    names = [name for name in ("url", "org", "bucket") if getattr(old, name) != getattr(new, name)]
    changed = [f"influx_{name} is {getattr(new, name)!r}" for name in names]
    before, now = old.remote.said(), new.remote.said()
    differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return changed + [f"{name} is {json.dumps(now.get(name))}" for name in differ]
