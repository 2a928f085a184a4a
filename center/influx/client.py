"""What both interfaces on InfluxDB 2 share: the client, queries with parameters, answers as rows, errors in words."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.dialect import Dialect
from influxdb_client.rest import ApiException
from influxdb_client.service.organizations_service import OrganizationsService
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from center.errors import RefusedError, StoreError
from center.faults import Faults
from center.influx.rows import decode
from center.settings import InfluxSettings
from center.stores.rows import Row

DIALECT = Dialect(annotations=["datatype"], header=True, date_time_format="RFC3339")
ALL_TIME = "range(start: 1677-09-22T00:00:00Z, stop: 2262-04-11T00:00:00Z)"


# What a query of an organisation that is gone is answered with: as a 400, the status of bad Flux.
NO_ORG = re.compile(r"organization\b.*\bnot found")
# What the minimum of a measurement is answered with, if a device has a boolean in it: as a 500.
NO_NUMBER = "unsupported for aggregate"
REMEDY = "if InfluxDB or a bucket was made anew, iot-center setup makes what is missing; iot-center check tells what is"


class Influx:
    """One client for both stores. Thread-safe. Raises StoreError for what goes wrong.

    It remembers no ids: a bucket or an organisation that is made anew has another one, and for a bucket that is gone
    InfluxDB issues tokens without a word.
    """

    def __init__(self, settings: InfluxSettings) -> None:
        self.settings = settings
        self.client = InfluxDBClient(
            settings.url,
            settings.token.reveal(),
            org=settings.org,
            timeout=round(settings.timeout * 1000),
            ssl_ca_cert=settings.ca_file,
            enable_gzip=True,
            connection_pool_maxsize=32,
        )
        self._write = WriteService(self.client.api_client)
        self._faults = Faults()

    def close(self) -> None:
        """End its connections, which the client leaves open until their pool is forgotten. Twice is fine."""
        if self.client.api_client is not None:
            self.client.api_client.rest_client.pool_manager.clear()
        self.client.close()

    @contextlib.contextmanager
    def call(self, what: str, *, refused: Sequence[int] = ()) -> Iterator[None]:
        """Around calls of the client: errors in words, as `explained`, and a fault in the log once while it lasts."""
        with self._faults.noted(what), explained(self.settings.url, refused=refused):
            yield

    def org_id(self) -> str:
        """The organisation's id; the settings name it by name or id."""
        with self._faults.noted("organisation"):
            return find_org(self.client, self.settings.org, self.settings.bucket)

    def find_buckets(self, **wanted: Any) -> list[Any]:
        """The client's records of buckets of the organisation that the token may see; each has its `org_id`.

        By organisation always: a search by name alone can return another one's bucket.
        """
        with self.call("buckets"):
            for org in named(self.settings.org):
                with _none_seen():
                    if found := self.client.buckets_api().find_buckets(**wanted, **org).buckets:
                        return list(found)
        return []

    def find_bucket(self, name: str) -> Any:
        """The client's record of a bucket. None: there is none, or none that the token may see."""
        return next((bucket for bucket in self.find_buckets(name=name) if bucket.name == name), None)

    def needed_bucket(self, name: str) -> Any:
        """As find_bucket; StoreError if there is none."""
        with self._faults.noted(f"bucket {name}"):
            found = self.find_bucket(name)
            if found is None:
                raise StoreError(
                    f"{self.settings.url}: there is no bucket {name!r} in organisation {self.settings.org!r} that the "
                    f"center's token can see: {REMEDY}"
                )
        return found

    def rows(self, flux: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of all tables. Values reach Flux as parameters (names starting with `_`), never as text in it."""
        asked = dict(params or {})
        with self.call(f"query {asked.get('_bucket', '')}", refused=(400,)):
            answer = self.client.query_api().query_raw(flux, self.settings.org, DIALECT, asked)
            text = answer.data.decode("utf-8", "replace")
        return list(decode(text))

    def write(self, bucket: str, lines: Sequence[str]) -> None:
        """Write line protocol. Raises RefusedError for what InfluxDB refuses, with its reason."""
        with self.call(f"write {bucket}", refused=(400, 413, 422)):
            self._write.post_write(
                org=self.settings.org,
                bucket=bucket,
                body="\n".join(lines).encode(),
                precision="ns",
                content_type="text/plain; charset=utf-8",
            )


@contextlib.contextmanager
def explained(url: str, *, refused: Sequence[int] = (400,)) -> Iterator[None]:
    """Turns what the client raises into what InfluxDB said and what to look at: RefusedError for the statuses that
    refuse what was sent, StoreError for all others.
    """
    try:
        yield
    except ApiException as error:
        said = _said(error)
        if refused and (NO_NUMBER in said or (error.status in refused and not NO_ORG.search(said))):
            raise RefusedError(said) from error
        raise StoreError(f"{url}: {_message(error)}") from error
    except HTTPError as error:
        raise StoreError(f"InfluxDB does not answer at {url}: is it running, and the address right?") from error


def _said(error: ApiException) -> str:
    """InfluxDB's own words. Never the request, which holds the token."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200] or str(error.reason)


def _message(error: ApiException) -> str:
    """What InfluxDB said, and where to look for the usual reasons."""
    said = _said(error)
    if error.status == 404 or NO_ORG.search(said):
        return f"{error.status} {said}: {REMEDY}"
    hint = {401: ": is the center's token right? See iot-center check", 403: ": see iot-center check"}
    return f"{error.status} {said}{hint.get(int(error.status or 0), '')}"


def named(org: str) -> list[dict[str, str]]:
    """An organisation as requests name it: by its name, or first by its id if it looks like one."""
    by_id: list[dict[str, str]] = [{"org_id": org}] if re.fullmatch("[0-9a-f]{16}", org) else []
    return [*by_id, {"org": org}]


def find_org(client: InfluxDBClient, org: str, bucket: str = "") -> str:
    """The id of the organisation with this name or id. Raises StoreError if the token sees none.

    A token with the least permissions cannot list organisations, but the search for its bucket tells.
    """
    service = OrganizationsService(client.api_client)
    by = named(org)
    with explained(client.url):
        for asked in by:
            with _none_seen():
                for found in service.get_orgs(**asked).orgs or ():
                    if org in {found.name, found.id}:
                        return str(found.id)
        for asked in by if bucket else ():
            with _none_seen():
                for found in client.buckets_api().find_buckets(name=bucket, **asked).buckets or ():
                    return str(found.org_id)
    raise StoreError(
        f"{client.url}: there is no organisation {org!r}, by name or id, that the center's token can see"
        + (f", nor a bucket {bucket!r} in it: iot-center setup makes what is missing" if bucket else "")
    )


@contextlib.contextmanager
def _none_seen() -> Iterator[None]:
    """Goes on after the answers that mean "none that you may see"."""
    try:
        yield
    except ApiException as error:
        if error.status not in {400, 404}:
            raise


def retention(bucket: Any) -> int:
    """Seconds; 0 for ever."""
    return max((rule.every_seconds or 0 for rule in bucket.retention_rules or ()), default=0)
