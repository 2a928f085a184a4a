"""The HTTP API of VictoriaMetrics: queries, export, flags, writes; errors in words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from agent.config.units import parse_duration
from center.errors import StoreError
from center.faults import Faults, log_once
from center.settings import VictoriaSettings

MS_NS = 1_000_000
# Its cache moves moments to multiples of the step, and of the last 30 s (-search.latencyOffset) it answers what was
# before: so everything is asked without the cache, for two days earlier, and by `offset` for what is two days later.
NOCACHE = ("nocache", 1)
SHIFT_MS = 2 * 86_400_000
LATER = f"offset -{SHIFT_MS}ms"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ROWS_A_LINE = 10_000
FLAGS_EVERY_S = 300.0
REMEDY = "see [victoria] url, write_url and token, and iot-center check"
MONTH_S = 31 * 86_400  # what -retentionPeriod counts in without a unit
_FLAG = re.compile(r'^-([^=]+)="(.*)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Written:
    """How a write was answered."""

    status: int
    message: str
    retry_after: str | None


class Victoria:
    """Thread-safe. Raises StoreError for what goes wrong. Times are milliseconds (Unix), which is what it keeps."""

    def __init__(self, settings: VictoriaSettings) -> None:
        self.url = settings.url.rstrip("/")
        self.write_url = (settings.write_url or settings.url).rstrip("/")
        token = settings.token.reveal()
        self._http = urllib3.PoolManager(
            maxsize=32,
            timeout=settings.timeout,
            retries=False,
            ca_certs=settings.ca_file,
            headers={"Authorization": f"Bearer {token}"} if token else None,
        )
        self._faults = Faults()
        self._flags: tuple[float, Mapping[str, str]] = (float("-inf"), {})

    def close(self) -> None:
        self._http.clear()

    def _ask(self, url: str, body: bytes, headers: Mapping[str, str], *, stream: bool = False) -> Any:
        """The answer to a POST. Never its request, which holds the token, in an error."""
        try:
            return self._http.request(
                "POST",
                url,
                body=body,
                headers={**self._http.headers, **headers},
                redirect=False,
                preload_content=not stream,
            )
        except HTTPError as error:
            raise StoreError(
                f"VictoriaMetrics does not answer at {url}: is it running, and the address right?"
            ) from error

    def _read(self, path: str, params: Sequence[tuple[str, Any]], *, stream: bool = False) -> Any:
        url = f"{self.url}{path}"
        answer = self._ask(url, urlencode(params).encode(), FORM, stream=stream)
        if answer.status != 200:
            said = answer.read(400) if stream else answer.data[:400]
            answer.release_conn()
            raise StoreError(f"{url}: {answer.status} {said.decode('utf-8', 'replace').strip()}: {REMEDY}")
        return answer

    def _data(self, path: str, params: Sequence[tuple[str, Any]]) -> Any:
        with self._faults.noted("query"):
            answer = self._read(path, params)
            try:
                return json.loads(answer.data)["data"]
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{self.url}{path}: not an answer of VictoriaMetrics: {REMEDY}") from error

    def instant(self, query: str, time_ms: int) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at this moment. What the query selects is LATER."""
        found = self._data("/api/v1/query", [("query", query), ("time", _seconds(time_ms - SHIFT_MS)), NOCACHE])
        return [(row["metric"], float(row["value"][1])) for row in found["result"]]

    def range(
        self, query: str, first_ms: int, last_ms: int, step_ms: int
    ) -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
        """Labels of each series, and its value at each of these moments that it has one at; as instant()."""
        begin, end = (_seconds(moment - SHIFT_MS) for moment in (first_ms, last_ms))
        span = [("start", begin), ("end", end), ("step", f"{step_ms}ms"), NOCACHE]
        found = self._data("/api/v1/query_range", [("query", query), *span])
        return [
            (row["metric"], [(round(at * 1000) + SHIFT_MS, float(value)) for at, value in row["values"]])
            for row in found["result"]
        ]

    def series(self, selectors: Sequence[str], start_ms: int, stop_ms: int) -> list[dict[str, str]]:
        """Labels of each series with samples on the days (UTC) of a range."""
        span = [("start", _seconds(start_ms)), ("end", _seconds(stop_ms - 1))]
        found: list[dict[str, str]] = self._data("/api/v1/series", [("match[]", s) for s in selectors] + span)
        return found

    def values(self, label: str, selector: str, start_ms: int, stop_ms: int) -> list[str]:
        """The values of a label on the days (UTC) of a range."""
        span = [("start", _seconds(start_ms)), ("end", _seconds(stop_ms - 1))]
        found: list[str] = self._data(f"/api/v1/label/{label}/values", [("match[]", selector), *span])
        return found

    def export(
        self, selectors: Sequence[str], start_ms: int, stop_ms: int
    ) -> Iterator[tuple[dict[str, str], list[int], list[float]]]:
        """Labels, times and values of the samples in [start, stop), piece by piece."""
        span = [("start", _seconds(start_ms)), ("end", _seconds(stop_ms - 1)), ("max_rows_per_line", ROWS_A_LINE)]
        with self._faults.noted("export"):
            answer = self._read("/api/v1/export", [("match[]", s) for s in selectors] + span, stream=True)
            try:
                for line in _lines(answer):
                    piece = json.loads(line)
                    yield piece["metric"], piece["timestamps"], [float(value) for value in piece["values"]]
            except (HTTPError, ValueError, KeyError) as error:
                raise StoreError(f"{self.url}/api/v1/export: its answer was cut short: try again") from error
            finally:
                answer.close()  # what nobody wants any more is not read to its end

    def write(self, body: bytes) -> Written:
        """Pass lines on (center.victoria.lines). 204: taken. It says nothing of lines that it leaves out.

        A 400 is a StoreError: the lines are good ones, so it is the address or the token (vmauth) that is wrong.
        """
        url = f"{self.write_url}/api/v2/write?precision=ns"
        found: Written | None = None
        try:
            with self._faults.noted("write"):
                answer = self._ask(url, body, {})
                said = answer.data[:400].decode("utf-8", "replace").strip()
                found = Written(answer.status, said, answer.headers.get("Retry-After"))
                if found.status not in {204, 413, 429}:
                    raise StoreError(f"{url}: {found.status} {said}: {REMEDY}")  # noqa: TRY301 - noted on its way
        except StoreError as error:
            if found is None or found.status < 500:
                raise
            log_once(error)
        assert found is not None
        return found

    def flags(self) -> Mapping[str, str]:
        """Its command line flags that are not at their default; none where they cannot be seen (behind a vmauth)."""
        read_at, flags = self._flags
        if time.monotonic() - read_at > FLAGS_EVERY_S:
            parts = urlsplit(self.url)
            try:
                answer = self._ask(f"{parts.scheme}://{parts.netloc}/flags", b"", {})
            except StoreError:
                answer = None
            if answer is not None and answer.status < 500:
                text = answer.data.decode("utf-8", "replace") if answer.status == 200 else ""
                flags = dict(_FLAG.findall(text))
            elif not flags:
                return {}  # it starts, or is away: asked again at once, lest a point older than its retention gets lost
            self._flags = (time.monotonic(), flags)
        return flags


def _seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03d}"


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for piece in answer.stream(1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def retention_s(flags: Mapping[str, str]) -> int | None:
    """Seconds that samples are kept; None where it cannot be seen (a cluster's vmselect does not know)."""
    text = flags.get("retentionPeriod")
    if not text:
        return MONTH_S if "storageDataPath" in flags else None
    number = re.fullmatch(r"([0-9.]+)([a-z]*)", text)
    if number is None:
        return None
    unit = {"": MONTH_S, "y": 365 * 86_400}.get(number[2])
    return round(float(number[1]) * unit) if unit else round(parse_duration(text))
