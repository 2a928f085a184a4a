"""A snapshot as the running agent gives it, for the tests of what shows it."""

import copy

from drivers.base import boot_ns

SECOND = 1_000_000_000


def snapshot(now=None, **changes):
    """All is well at boot-clock nanosecond `now`; `changes` replace whole sections."""
    now = boot_ns() if now is None else now
    found = {
        "running": True,
        "version": "1.0.0",
        "pid": 1,
        "device_id": "greenhouse-3",
        "uptime_s": 3600.0,
        "at": 1_790_000_000.0,
        "boot_ns": now,
        "clock": {
            "good": True,
            "evidence": "kernel",
            "since_boot_ns": 0,
            "offset_ns": 5,
            "error_ns": 12_000_000,
            "clock_error_s": 0.012,
            "warning": None,
            "words": "good by the kernel for 60 min, within 0.012 s",
        },
        "sensors": [sensor(now)],
        "buffer": {
            "pending_memory": 2,
            "pending_disk": 1200,
            "undated": 0,
            "parked": 1,
            "dead_letters": 4,
            "disk_bytes": 45_000,
            "file_bytes": 90_000,
            "disk_ok": True,
            "problem": None,
            "oldest_ns": 1_789_999_000 * SECOND,
            "commit_s": 0.01,
        },
        "ledger": {
            "measured": 10_000,
            "delivered": 8_790,
            "pending": 1202,
            "rejected": 4,
            "dropped": 4,
            "unaccounted": 0,
            "dropped_by_reason": {"full": 4},
            "uncounted_s": 0.0,
        },
        "delivery": {
            "state": "delivering",
            "since_boot_ns": now - 3600 * SECOND,
            "alive_boot_ns": now,
            "last_success_boot_ns": now - 3 * SECOND,
            "last_error": None,
            "failures": 0,
            "next_attempt_s": 0.0,
            "backlog": 0,
            "eta_s": None,
            "requests": 700,
            "bytes_sent": 123_456,
        },
        "registration": {
            "state": "registered",
            "error": None,
            "url": "http://influx.local:8086",
            "org": "o",
            "bucket": "iot_center",
            "warnings": (),
        },
        "warnings": [],
    }
    return {**copy.deepcopy(found), **changes}


def sensor(now, **changes):
    return {
        "name": "bme280",
        "kind": "bme280",
        "description": "BME280 at 0x77 on /dev/i2c-1",
        "interval": 10.0,
        "readings": 360,
        "missed": 1,
        "implausible": 2,
        "errors": 3,
        "failing_since_boot_ns": None,
        "problem": None,
        "refused": {},
        "stuck": {},
        "calibration": {},
        "remote": {},
        "values": {"Temperature": 21.5, "Humidity": 40.25, "Pressure": 1013.2},
        "boot_ns": now - 2 * SECOND,
    } | changes


def in_trouble(boot):
    """A sensor that is not found, one with a stuck and a refused quantity, and a silent one, at this moment."""
    return [
        sensor(
            boot,
            name="attic",
            failing_since_boot_ns=boot - 90 * SECOND,
            problem="No I2C device at address: 0x77",
            cause="NotFound",
        ),
        sensor(
            boot,
            name="cellar",
            stuck={"Humidity": boot - 7200 * SECOND},
            refused={"Pressure": {"since_boot_ns": boot - 600 * SECOND, "why": "never measured"}},
        ),
        sensor(boot, name="roof", boot_ns=boot - 300 * SECOND),
    ]
