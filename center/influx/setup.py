"""`iot-center setup` and `iot-center check` for InfluxDB: what is missing, and making it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.onboarding_request import OnboardingRequest
from influxdb_client.rest import ApiException
from influxdb_client.service.setup_service import SetupService

from agent.util.secret import Secret
from center.errors import RefusedError, StoreError
from center.findings import Finding
from center.influx.client import Influx, explained, retention
from center.influx.issuing import IssuingRegistry
from center.influx.registry import InfluxRegistry
from center.settings import Settings

NAMED = 10  # devices in one finding
PERMISSIONS = (
    "read and write authorizations, read and write its own user, read and write the two buckets; "
    "setup also needs to write buckets and to read the organisation"
)


@contextlib.contextmanager
def _onboarding(settings: Settings) -> Iterator[SetupService]:
    """The service of an InfluxDB that has no users yet."""
    influx = settings.influxdb
    with (
        InfluxDBClient(influx.url, "", timeout=round(influx.timeout * 1000), ssl_ca_cert=influx.ca_file) as client,
        explained(influx.url),
    ):
        yield SetupService(client.api_client)


def is_fresh(settings: Settings) -> bool:
    """Whether InfluxDB waits for its onboarding."""
    with _onboarding(settings) as service:
        return bool(service.get_setup().allowed)


def onboard(settings: Settings, username: str, password: Secret, retention_s: int) -> Secret | None:
    """Set a fresh InfluxDB up: its first user, organisation, telemetry bucket and token. None if it was set up before.

    The settings' token becomes the first one; without it InfluxDB makes one, which is returned.
    """
    influx = settings.influxdb
    with _onboarding(settings) as service:
        request = OnboardingRequest(
            username=username,
            password=password.reveal(),
            org=influx.org,
            bucket=influx.bucket,
            retention_period_seconds=retention_s,
            token=influx.token.reveal() or None,
        )
        try:
            return Secret(service.post_setup(request).auth.token)
        except ApiException as error:
            if error.status == 422:
                return None
            raise


def make_buckets(registry: InfluxRegistry, retention_s: int) -> Iterator[str]:
    """Make the buckets where they are missing; one line for each. Retention is for measurements only."""
    influx = registry.influx
    wanted = {registry.bucket_auth: 0} if _issues(registry) else {registry.bucket: retention_s, registry.bucket_auth: 0}
    for name, kept in wanted.items():
        found = influx.find_bucket(name)
        if found is not None:
            seconds = retention(found)
            yield f"bucket {name} is there ({f'keeps {seconds} s' if seconds else 'keeps everything'})"
            continue
        rules = BucketRetentionRules(type="expire", every_seconds=kept)
        with explained(influx.settings.url):
            influx.client.buckets_api().create_bucket(bucket_name=name, org=influx.org_id(), retention_rules=rules)
        yield f"bucket {name} is made"


def _issues(registry: InfluxRegistry) -> bool:
    return isinstance(registry, IssuingRegistry)


def check(registry: InfluxRegistry) -> Iterator[Finding]:
    """Try everything that the center does with InfluxDB, the cheapest first; what it writes it takes away again."""
    influx = registry.influx
    url = influx.settings.url
    try:
        with explained(url):
            version = influx.client.version()
        yield Finding(f"InfluxDB {version} answers at {url}")
        yield Finding(f"organisation {influx.settings.org} is {influx.org_id()}")
    except StoreError as error:
        yield Finding(str(error), "mend influxdb.url, token and org, or run iot-center setup")
        return
    missing = _issues(registry)  # tokens are the center's own, and measurements elsewhere
    buckets = {registry.bucket: "measurements", registry.bucket_auth: "registrations"}
    for name, what in list(buckets.items())[1 if missing else 0 :]:
        found = influx.find_bucket(name)
        missing = missing or found is None
        if found is None:
            yield Finding(f"there is no bucket {name} for {what} that the token can see", "run iot-center setup")
        elif name == registry.bucket_auth and (seconds := retention(found)):
            yield Finding(f"bucket {name} forgets registrations after {seconds} s", "set its retention to never")
        else:
            yield _tried(f"bucket {name} for {what} can be read and written", partial(_touch, influx, name))
    if not missing:
        yield _tried("authorizations can be made, listed and deleted", partial(_probe, registry))


def _tried(text: str, attempt: Callable[[], str | None]) -> Finding:
    remedy = f"the center's token needs: {PERMISSIONS}"
    try:
        wrong = attempt()
    except (StoreError, RefusedError) as error:
        return Finding(f"not so: {text}: {error}", remedy)
    return Finding(f"not so: {text}: {wrong}", remedy) if wrong else Finding(text)


def _touch(influx: Influx, bucket: str) -> None:
    influx.write(bucket, ["", ""])  # a newline: an empty body is not gzipped, though its header says so
    influx.rows("from(bucket: _bucket) |> range(start: -1s) |> limit(n: 1)", {"_bucket": bucket})


def _probe(registry: InfluxRegistry) -> str | None:
    key, _ = registry.authorize("check")
    try:
        return None if key in registry.issued() else "what it made is not in its list: it cannot read its own user"
    finally:
        registry.delete(key)


AGAIN = "nothing, if it runs and has its device secret: it registers again by itself; else"


def devices(registry: InfluxRegistry) -> Iterator[Finding]:
    """Registrations whose authorization cannot write, and authorizations that no registration refers to."""
    registered = registry.devices().devices
    yield Finding(f"{len(registered)} devices are registered")
    if _issues(registry):
        return
    issued = registry.issued()
    deleted = [device.id for device in registered if device.key not in issued]
    held = {device.id: issued[device.key] for device in registered if device.key in issued}
    inactive = [device_id for device_id, found in held.items() if not found.active]
    elsewhere = [device_id for device_id, found in held.items() if found.active and not found.writes]
    for ids, what, remedy in (
        (deleted, "the authorization was deleted", f"{AGAIN} remove it"),
        (inactive, "the authorization is set to inactive in InfluxDB", "set it to active there, or remove the device"),
        (
            elsewhere,
            f"the authorization is alive, but not for the bucket {registry.bucket} that is there now: it was made anew",
            f"{AGAIN} give it a new token on its page",
        ),
    ):
        if ids:
            shown = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
            yield Finding(f"{shown}: {what}", remedy)
    if keys := registry.orphans(older_than_s=600):
        yield Finding(
            f"{len(keys)} authorizations belong to no registration (a registration was cut short)",
            "run iot-center check --sweep",
        )
