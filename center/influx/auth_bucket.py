"""The way to the points of the auth bucket: all strings, stamped by the server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from center.errors import RefusedError, StoreError
from center.influx.client import ALL_TIME, Influx
from center.line_protocol import encode
from center.stores.rows import Row
from center.stores.telemetry import Point


class AuthBucket:
    """What the parts of the registry on InfluxDB have in common."""

    def __init__(self, influx: Influx, bucket_auth: str) -> None:
        self.influx = influx
        self.bucket_auth = bucket_auth

    def _rows(self, measurement: str, pipeline: str, span: str = ALL_TIME, **tags: str) -> list[Row]:
        """Of the points of a measurement in the auth bucket, those with these tags."""
        where = "".join(f" and r.{tag} == _{tag}" for tag in tags)
        with _never_refused():
            return self.influx.rows(
                f"from(bucket: _bucket) |> {span} "
                f'|> filter(fn: (r) => r._measurement == "{measurement}"{where}) {pipeline}',
                {"_bucket": self.bucket_auth} | {f"_{tag}": value for tag, value in tags.items()},
            )

    def _write(self, measurement: str, tags: dict[str, str], fields: dict[str, str]) -> None:
        """A point of the auth bucket. Without a time: the order is the server's."""
        with _never_refused():
            self.influx.write(self.bucket_auth, [encode(Point(measurement, tags, dict(fields)))])


@contextlib.contextmanager
def _never_refused() -> Iterator[None]:
    """What the registry asks and writes is its own: where InfluxDB refuses it, that is no fault of the caller."""
    try:
        yield
    except RefusedError as error:
        raise StoreError(f"InfluxDB refuses the center's own request: {error}; see iot-center check") from error
