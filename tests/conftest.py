"""Marks: what needs a system package is skipped with the package's name unless it is there; slow only with MARKED=1."""

import functools
import os
import shutil
import subprocess

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from jinja2 import BytecodeCache

from tests.amounts import EXPLORE, MARKED

# How long an example takes depends on the machine and on who else uses it.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("a few", max_examples=25, derandomize=not EXPLORE, **UNTIMED)
settings.register_profile("all", derandomize=not EXPLORE, **UNTIMED)
settings.load_profile("all" if MARKED else "a few")


class Compiled(BytecodeCache):
    """Templates, compiled once for all the centers of a run: each would compile its own."""

    def __init__(self):
        self._compiled = {}

    def load_bytecode(self, bucket):
        if code := self._compiled.get((bucket.key, bucket.checksum)):
            bucket.code = code

    def dump_bytecode(self, bucket):
        self._compiled[bucket.key, bucket.checksum] = bucket.code


Flask.jinja_options = {"bytecode_cache": Compiled()}


@functools.cache
def namespaces():
    """Whether this user may make them, which a container often forbids even to root."""
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(probe, capture_output=True, check=False).returncode == 0


NEEDS = {
    "umockdev": (lambda: shutil.which("umockdev-run"), "install Debian's package umockdev"),
    "chromium": (lambda: shutil.which("chromium"), "install Debian's package chromium"),
    "victoria": (lambda: shutil.which("victoria-metrics"), "install Debian's package victoria-metrics"),
    "influxdb": (
        lambda: os.environ.get("INFLUXDB_V2_URL"),
        "name an InfluxDB 2 by INFLUXDB_V2_URL, INFLUXDB_V2_TOKEN and INFLUXDB_V2_ORG",
    ),
    "tinyproxy": (
        lambda: shutil.which("tinyproxy") or shutil.which("tinyproxy", path="/usr/sbin:/usr/bin"),
        "install Debian's package tinyproxy",
    ),
    "nginx": (
        lambda: shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"),
        "install Debian's package nginx",
    ),
    "mosquitto": (
        lambda: shutil.which("mosquitto", path="/usr/sbin:/usr/bin") and shutil.which("mosquitto_sub"),
        "install Debian's packages mosquitto and mosquitto-clients",
    ),
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "nspawn": (
        lambda: shutil.which("mmdebstrap") and shutil.which("systemd-nspawn") and namespaces(),
        "as root, where namespaces are allowed, install Debian's packages mmdebstrap and systemd-container",
    ),
    "qemu": (
        lambda: all(map(shutil.which, ("mmdebstrap", "systemd-nspawn", "qemu-system-x86_64"))) and namespaces(),
        "as root, where namespaces are allowed, install Debian's mmdebstrap, systemd-container and qemu-system-x86",
    ),
    "release": (
        lambda: os.environ.get("RELEASE") and all(map(shutil.which, ("mmdebstrap", "systemd-nspawn", "dpkg-deb"))),
        "make release-check, as root, with Debian's mmdebstrap, systemd-container and qemu-user-static",
    ),
    "slow": (lambda: os.environ.get("MARKED"), "set MARKED=1: make test MARKED=1"),
}


def pytest_collection_modifyitems(items):
    for item in items:
        for mark, (found, remedy) in NEEDS.items():
            if item.get_closest_marker(mark) and not found():
                item.add_marker(pytest.mark.skip(reason=f"{mark}: {remedy}"))
