"""What both interfaces on InfluxDB 2 share: the client, queries with parameters, answers as rows, errors in words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.dialect import Dialect
from influxdb_client.rest import ApiException
from influxdb_client.service.organizations_service import OrganizationsService
from influxdb_client.service.write_service import WriteService
from urllib3.exceptions import HTTPError

from center.errors import RefusedError, StoreError
from center.influx.rows import Row, decode
from center.settings import InfluxSettings

DIALECT = Dialect(annotations=["datatype"], header=True, date_time_format="RFC3339")
ALL_TIME = "range(start: 1677-09-22T00:00:00Z, stop: 2262-04-11T00:00:00Z)"


class Influx:
    """One client for both stores. Thread-safe. Raises StoreError for what goes wrong."""

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
        self._org_id = ""

    @property
    def org_id(self) -> str:
        """The organisation's id; the settings name it by name or id."""
        if not self._org_id:
            self._org_id = find_org(self.client, self.settings.org, self.settings.bucket)
        return self._org_id

    def find_bucket(self, name: str) -> Any:
        """The client's record of a bucket, by the organisation's id: a search by name alone can return another
        organisation's. None: there is none, or none that the token may see.
        """
        org_id = self.org_id
        with explained(self.settings.url), _none_seen():
            for bucket in self.client.buckets_api().find_buckets(name=name, org_id=org_id).buckets or ():
                if bucket.name == name and bucket.org_id == org_id:
                    return bucket
        return None

    def rows(self, flux: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of all tables. Values reach Flux as parameters (names starting with `_`), never as text in it."""
        with explained(self.settings.url):
            answer = self.client.query_api().query_raw(flux, self.org_id, DIALECT, dict(params or {}))
            text = answer.data.decode("utf-8", "replace")
        return list(decode(text))

    def write(self, bucket: str, lines: Sequence[str]) -> None:
        """Write line protocol. Raises RefusedError for what InfluxDB refuses, with its reason."""
        with explained(self.settings.url, refused=(400, 413, 422)):
            self._write.post_write(
                org=self.org_id,
                bucket=bucket,
                body="\n".join(lines).encode(),
                precision="ns",
                content_type="text/plain; charset=utf-8",
                _preload_content=False,
            )


@contextlib.contextmanager
def explained(url: str, *, refused: Sequence[int] = (400,)) -> Iterator[None]:
    """Turns what the client raises into what InfluxDB said and what to look at: RefusedError for the statuses that
    refuse what was sent, StoreError for all others.
    """
    try:
        yield
    except ApiException as error:
        if error.status in refused:
            raise RefusedError(_said(error)) from error
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
    hint = {
        401: ": is the center's token right? See iot-center check",
        403: ": see iot-center check",
        404: ": see iot-center check",
    }
    return f"{error.status} {_said(error)}{hint.get(int(error.status or 0), '')}"


def find_org(client: InfluxDBClient, org: str, bucket: str = "") -> str:
    """The id of the organisation with this name or id. Raises StoreError if the token sees none.

    A token with the least permissions cannot list organisations, but the search for its bucket tells.
    """
    service = OrganizationsService(client.api_client)
    by = {"org": org}, {"org_id": org}
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
