"""What starts the commands: a foreign package in the place of ours is named. And `flask run`."""

import ast
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import iot_edge_agent

ROOT = Path(__file__).parent.parent
INSTALLED = "import sys; sys.meta_path = [f for f in sys.meta_path if 'Editable' not in repr(f)]; "  # as from a wheel
METADATA = "Metadata-Version: 2.1\nName: drivers\nVersion: 0.1.0\n"


def call(folder, path, *command, **more):
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("INFLUX_", "IOT_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join(map(str, path))} | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["agent", "center"])
def test_a_package_of_another_s_in_the_place_of_ours_is_named_with_what_to_do(tmp_path, command):
    for folder in ("drivers", "drivers-0.1.0.dist-info"):
        (tmp_path / folder).mkdir()
    (tmp_path / "drivers" / "__init__.py").write_text("")
    (tmp_path / "drivers-0.1.0.dist-info" / "METADATA").write_text(METADATA)
    (tmp_path / "drivers-0.1.0.dist-info" / "RECORD").write_text("drivers/__init__.py,,\n")
    said = call(
        tmp_path, (tmp_path, ROOT), "-c", f"{INSTALLED}from iot_edge_agent import {command}; {command}()", "check"
    )
    assert said.returncode == 1
    assert "the package drivers 0.1.0 put a package 'drivers' of its own" in said.stderr
    assert "pip uninstall drivers, then pip install --force-reinstall" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_a_folder_of_that_name_on_the_path_is_named(tmp_path):
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "__init__.py").write_text("")
    said = call(tmp_path, (tmp_path, ROOT), "-c", f"{INSTALLED}from iot_edge_agent import agent; agent()", "check")
    assert f"'drivers' is not iot-edge-agent's but {tmp_path / 'drivers'}" in said.stderr


@pytest.mark.parametrize(("command", "argument"), [("agent", "config"), ("agent", "--help"), ("center", "--version")])
def test_a_full_disk_behind_stdout_is_no_traceback(command, argument):
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        said = subprocess.run(
            [sys.executable, "-c", f"from iot_edge_agent import {command}; {command}()", argument],
            stdout=full,
            stderr=subprocess.PIPE,
            env={name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"},
            text=True,
            timeout=60,
            check=False,
        )
    assert said.returncode == 1
    assert said.stderr == "-c: No space left on device\n"


def test_ctrl_c_before_all_is_imported_is_no_traceback(monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(iot_edge_agent, "import_module", interrupted)
    with pytest.raises(SystemExit) as ended:
        iot_edge_agent.agent()
    assert ended.value.code == 130


def test_an_error_of_our_own_stays_one(tmp_path):
    code = "import agent.cli as c; c.main = lambda: c.nothing; from iot_edge_agent import agent; agent()"
    assert "AttributeError" in call(tmp_path, (ROOT,), "-c", code).stderr


@pytest.mark.parametrize("flask", [["run"], ["--app", "center", "run"]])
def test_flask_run_says_in_one_sentence_what_is_missing(tmp_path, flask):
    said = call(tmp_path, (ROOT,), "-m", "flask", *flask)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("Error: no InfluxDB to store in: INFLUX_URL, INFLUX_TOKEN, INFLUX_ORG not set")
    assert "IOT_CENTER_EMBEDDED=1" in line


def test_flask_takes_the_tutorial_s_config_ini(tmp_path):
    """Its application is made for that InfluxDB, whether or not that answers just now."""
    where = "INFLUX_URL = http://127.0.0.1:9\nINFLUX_TOKEN = t\nINFLUX_ORG = o\n"
    (tmp_path / "config.ini").write_text(f"[APP]\n{where}INFLUX_BUCKET = b\nINFLUX_BUCKET_AUTH = a\n")
    said = call(tmp_path, (ROOT,), "-m", "flask", "routes")
    assert said.returncode == 0, said.stderr
    assert "/api/devices" in said.stdout
    assert "/api/v2/write" not in said.stdout  # which only the embedded store answers


def test_flask_finds_the_center_where_it_is_installed_and_an_app_of_one_s_own_first(tmp_path):
    embedded = {"IOT_CENTER_EMBEDDED": "1", "XDG_STATE_HOME": str(tmp_path)}
    said = call(tmp_path, (ROOT,), "-m", "flask", "routes", **embedded)
    assert said.returncode == 0, said.stderr
    assert re.search(r"POST +/api/devices/<", said.stdout)
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask('mine')\n")
    assert "/api/devices" not in call(tmp_path, (ROOT,), "-m", "flask", "routes").stdout


def test_every_library_that_agent_and_drivers_import_is_named_in_pyproject():
    """Else it is there by the grace of another, in any version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [extras[name] for name in extras.keys() - {"center", "test", "mutants", "check", "release"}]
    named = {_plain(text) for text in itertools.chain(project["dependencies"], *needed)}
    imported = {name for folder in ("agent", "drivers") for path in (ROOT / folder).rglob("*.py") for name in _in(path)}
    foreign = imported - sys.stdlib_module_names - {"agent", "drivers"}
    assert {"click", "influxdb_client", "paho"} <= foreign
    providing = importlib.metadata.packages_distributions()
    assert [name for name in foreign if not named & {_plain(text) for text in providing[name]}] == []


def _plain(requirement):
    """The name of the distribution alone, as names are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def _in(path):
    """The first names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]
