"""Marks: what needs a system package is skipped with the package's name unless it is there; slow only with MARKED=1."""

import os
import shutil

import pytest

NEEDS = {
    "umockdev": (lambda: shutil.which("umockdev-run"), "install Debian's package umockdev"),
    "chromium": (lambda: shutil.which("chromium"), "install Debian's package chromium"),
    "victoria": (lambda: shutil.which("victoria-metrics"), "install Debian's package victoria-metrics"),
    "influxdb": (
        lambda: os.environ.get("INFLUXDB_V2_URL"),
        "name an InfluxDB 2 by INFLUXDB_V2_URL, INFLUXDB_V2_TOKEN and INFLUXDB_V2_ORG",
    ),
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "nspawn": (
        lambda: os.geteuid() == 0 and shutil.which("mmdebstrap") and shutil.which("systemd-nspawn"),
        "as root, install Debian's packages mmdebstrap and systemd-container",
    ),
    "qemu": (
        lambda: os.geteuid() == 0 and shutil.which("mmdebstrap") and shutil.which("qemu-system-x86_64"),
        "as root, install Debian's packages mmdebstrap and qemu-system-x86",
    ),
    "slow": (lambda: os.environ.get("MARKED"), "set MARKED=1: make test MARKED=1"),
}


def pytest_collection_modifyitems(items):
    for item in items:
        for mark, (found, remedy) in NEEDS.items():
            if item.get_closest_marker(mark) and not found():
                item.add_marker(pytest.mark.skip(reason=f"{mark}: {remedy}"))
