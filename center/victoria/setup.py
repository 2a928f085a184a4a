"""What VictoriaMetrics has to be started with, and whether it is: for `iot-center setup` and `check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.config.units import format_duration, parse_duration
from center.errors import StoreError
from center.findings import Finding
from center.victoria.client import Victoria, retention_s
from center.victoria.telemetry import VictoriaTelemetry

DEDUP = "-dedup.minScrapeInterval=1ms"
NEEDED = (
    f"VictoriaMetrics is started with {DEDUP} (a cluster: each vmselect and vmstorage), else a point that is sent "
    "again counts twice; and with -retentionPeriod=…, which is one month unless it says so (a cluster: each vmstorage)."
)
NAMING = ("influxMeasurementFieldSeparator", "influxSkipSingleField", "influxSkipMeasurement")
LOOK = "look at the address, its log, and what stands between"


def check(telemetry: VictoriaTelemetry) -> Iterator[Finding]:
    """Try reading and writing, and look at its flags where they can be seen."""
    victoria = telemetry.victoria
    try:
        telemetry.reach()
        yield Finding(f"VictoriaMetrics answers at {victoria.url}")
    except StoreError as error:
        yield Finding(str(error), f"mend victoria.url and token: {LOOK}")
    yield _written(victoria)
    flags = victoria.flags()
    if not flags:
        yield Finding(f"its flags cannot be seen from here: {NEEDED}")
        return
    yield _dedup(flags)
    if (kept := retention_s(flags)) is not None:
        yield Finding(f"it keeps points for {format_duration(kept)}")
    else:
        yield Finding("for how long it keeps points is not seen from here: older ones it leaves out without a word")
    for name in NAMING:
        if name in flags:
            yield Finding(f"it runs with -{name}={flags[name]}, so fields have other names", f"run it without -{name}")


def _written(victoria: Victoria) -> Finding:
    text = f"what devices write can be passed on to {victoria.write_url}"
    try:
        answer = victoria.write(b"")
    except StoreError as error:
        return Finding(f"not so: {text}: {error}", f"mend victoria.write_url and token: {LOOK}")
    if answer.status != 204:
        return Finding(f"not so: {text}: {answer.status} {answer.message}", LOOK)
    return Finding(text)


def _dedup(flags: Mapping[str, str]) -> Finding:
    interval = flags.get("dedup.minScrapeInterval", "0s")
    seconds = parse_duration(interval)
    if not seconds:
        return Finding("a point that is sent again counts twice", f"start VictoriaMetrics with {DEDUP}")
    if seconds > 0.001:
        return Finding(f"of the points of {interval} it keeps one", f"start VictoriaMetrics with {DEDUP}")
    return Finding("a point that is sent again counts once")
