"""The doctor's look at the board: disk and card, temperature and power, sensors, buffer, service."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.buffer import offline
from agent.config.settings import SensorSettings
from agent.config.units import counted, megabytes, rough_duration
from agent.doctor.finding import Finding, Patient, failed, ok, skipped, warning
from agent.sensing.treatment import Treatment
from agent.status.board import read_board, text_of, throttling
from agent.status.health_rules import troubles
from agent.status.words import WAITING, equation, values
from drivers.base import NoPermission, Reading, SensorError, make
from drivers.i2c import NoBus

FULL_BYTES = 10_000_000
LITTLE_BYTES = 100_000_000
ROOM = "make room: sudo journalctl --vacuum-size=50M; sudo apt-get clean; or lower [buffer] max_size"
UNIT = "iot-agent.service"


def disk(patient: Patient) -> Iterator[Finding]:
    """Room on the disk of the state folder, and what its file system and card say of themselves."""
    name = "disk"
    folder = next(p for p in (patient.state_dir, *patient.state_dir.absolute().parents) if os.path.lexists(p))
    found = os.statvfs(folder)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{free / 1e6:,.0f} of {total / 1e6:,.0f} MB free where {patient.state_dir} lies"
    if found.f_flag & os.ST_RDONLY:
        yield failed(
            name,
            f"{folder} is read-only: points wait in memory only",
            "see dmesg: a card that failed is mounted read-only; sudo mount -o remount,rw, or another card",
        )
    if not free:
        yield failed(name, f"the disk is full: {text}; points wait in memory only", ROOM)
    elif free < min(FULL_BYTES, total // 20):
        yield failed(name, f"the disk is nearly full: {text}", ROOM)
    elif found.f_files and not found.f_favail:
        yield failed(name, "the disk has no inode left: no file can be made", "delete small files you do not need")
    elif free < min(LITTLE_BYTES, total // 10):
        yield warning(name, text, ROOM)
    else:
        yield ok(name, text)
    yield from _card(patient.root, folder)


def _card(root: Path, folder: Path) -> Iterator[Finding]:
    """Signs of a dying card: errors that ext4 counted, and the wear that an eMMC states (JEDEC 84-B51, 7.4.79)."""
    device = folder.stat().st_dev
    block = (root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    errors = text_of(root / f"sys/fs/ext4/{block.name}/errors_count")
    if errors.isdecimal() and int(errors):
        yield warning(
            "card",
            f"the file system on {block.name} has counted {errors} errors",
            f"copy what matters, check it with e2fsck -f /dev/{block.name} from another system, and get another card",
        )
    for place in (block, block.parent):
        for level in text_of(place / "device/life_time").split():
            if level.startswith("0x") and int(level, 16) >= 9:
                yield warning(
                    "card", f"{place.name} states {int(level, 16) * 10} % of its life used", "get another card"
                )
                return


def board(patient: Patient) -> Iterator[Finding]:
    now = read_board(None, patient.root)
    said = []
    if now.cpu_temperature is not None:
        said.append(f"{now.cpu_temperature:.0f} °C")
    if now.memory_available is not None:
        said.append(f"{now.memory_available / 1e6:,.0f} MB of memory available")
    if now.throttled:
        yield warning(
            "board",
            ", ".join(throttling(now.throttled)),
            "use the board's own power supply and a short, thick cable; cool it where it is hot",
        )
    if now.memory_available is not None and now.memory_available < 30e6:
        yield warning("board", f"only {said[-1]}", "stop programs you do not need")
    elif said:
        yield ok("board", ", ".join(said))


def sensors(patient: Patient) -> Iterator[Finding]:
    """Bus, chip and a reading of each sensor; of the running agent where there is one, as a chip has one reader."""
    if patient.running is not None:
        for status in patient.running.get("sensors", []):
            yield _running_sensor(status, patient.running.get("boot_ns", 0))
        return
    if patient.settings is None:
        yield skipped("sensor", "without the configuration it is not known which there are")
        return
    active = _systemctl(patient.root).get("ActiveState") == "active"
    for settings in patient.settings.sensor:
        name = settings.name or settings.driver
        if active:
            yield skipped(
                f"sensor {name}", "the running agent has it, and does not answer this user: sudo iot-agent doctor"
            )
        else:
            yield from _sensor(settings, name)


def _running_sensor(status: Mapping[str, Any], now: int) -> Finding:
    name = f"sensor {status.get('name')}"
    for trouble in troubles({"boot_ns": now, "sensors": [status]}):
        if trouble.kind == "failing":
            return failed(name, *_split(trouble.why))
        if trouble.kind == "silent":
            seen = f"no reading for {rough_duration(trouble.seconds)}: its driver hangs"
            return failed(name, seen, "sudo systemctl restart iot-agent, and see its wires and power")
    if status.get("refused"):
        why = "; ".join(f"{quantity}: {found['why']}" for quantity, found in status["refused"].items())
        return warning(name, f"refused as implausible: {why}", "see its place; the sensor may be broken")
    if status.get("stuck"):
        seen = f"the very same raw values again and again of {', '.join(status['stuck'])}"
        return warning(name, seen, "take its power away for a second; get another one")
    if status.get("boot_ns") is None:
        return warning(name, "not read yet", "wait a moment, then ask again")
    return ok(name, f"{status.get('description')}: {values(status['values'])} (by the running agent)")


def _sensor(settings: SensorSettings, name: str) -> Iterator[Finding]:
    driver = make(settings.driver, settings.options)
    try:
        driver.open()
    except (NoBus, NoPermission) as error:
        yield failed(f"I2C bus of {name}", *_split(str(error), error.remedy))
        return
    except SensorError as error:
        yield failed(f"chip of {name}", *_split(str(error), error.remedy))
        return
    try:
        yield ok(f"chip of {name}", driver.describe())
        yield judged(f"reading of {name}", Treatment(settings).of(driver.read()))
    except SensorError as error:
        yield failed(f"reading of {name}", *_split(str(error), error.remedy))
    finally:
        driver.close()


def judged(name: str, reading: Reading) -> Finding:
    if reading.refused:
        problem = "; ".join(f"{quantity}: {why}" for quantity, why in reading.refused.items())
        return failed(name, problem, "check power and wires; the sensor may be broken")
    return ok(name, values(reading.values))


def _split(text: str, remedy: str = "") -> tuple[str, str]:
    """What was seen and what to do, of an error that says both."""
    if remedy and text.endswith(remedy):
        return text.removesuffix(remedy).rstrip(": "), remedy
    seen, _, rest = text.partition(": ")
    return (seen, rest) if rest else (text, "see journalctl -u iot-agent")


def buffer(patient: Patient) -> Iterator[Finding]:
    """What waits, and whether the counters add up."""
    name = "buffer"
    if patient.running is not None:
        yield from _running_buffer(patient.running)
        return
    if patient.hidden:
        yield skipped(name, patient.hidden)
        return
    yield from _buffer(name, offline.look(patient.state_dir / "buffer", untouched=True))


def _running_buffer(running: Mapping[str, Any]) -> Iterator[Finding]:
    state, ledger = running.get("buffer", {}), running.get("ledger", {})
    if state.get("problem"):
        yield failed("buffer", str(state["problem"]), "see the check of the disk; points wait in memory meanwhile")
    remedies = "see the check of the clock", "the agent's log has the server's words", "iot-agent rejected list"
    for (key, text), remedy in zip(WAITING.items(), remedies, strict=True):
        if state.get(key):
            yield warning("buffer", f"{counted(state[key], 'point')} {text}", remedy)
    yield from _accounts(ledger.get("unaccounted"))
    yield ok("buffer", equation(ledger))


def _accounts(unaccounted: int | None) -> Iterator[Finding]:
    if unaccounted:
        yield failed("ledger", f"{counted(unaccounted, 'point')} unaccounted for", "report it: it is a bug")


def _buffer(name: str, found: offline.Look | None) -> Iterator[Finding]:
    if found is None:
        yield ok(name, "there is none yet")
    elif found.problem:
        seen = f"it is damaged: {found.problem}"
        yield failed(name, seen, "nothing: the next start saves what can be read and goes on")
    else:
        status = found.status
        size = megabytes(status.file_bytes)
        text = f"{counted(status.pending_disk, 'point')} in {counted(status.rows, 'row')} on disk ({size})"
        if found.unwritten:
            text += f", and a log of {megabytes(found.unwritten)} that the next start takes in"
        yield ok(name, text)
        yield from _accounts(status.unaccounted if found.clean and not found.unwritten else 0)


def service(patient: Patient) -> Iterator[Finding]:
    """The state of the systemd unit."""
    name = "service"
    state = _systemctl(patient.root)
    if not state:
        yield ok(name, "no systemd here")
        return
    if state.get("LoadState") != "loaded":
        yield ok(name, f"{UNIT} is not installed (sudo iot-agent install-service does that)")
        return
    active, result, code = state.get("ActiveState"), state.get("Result"), state.get("ExecMainStatus")
    restarts = int(state.get("NRestarts") or 0)
    if active == "active":
        if restarts:
            yield warning(name, f"{UNIT} runs, and was restarted {restarts} times", "journalctl -u iot-agent shows why")
        else:
            yield ok(name, f"{UNIT} runs: {state.get('StatusText') or 'ready'}")
    elif code == "78":
        yield failed(
            name, f"{UNIT} does not start: the configuration is wrong", f"iot-agent check --config {patient.config}"
        )
    elif active in {"activating", "failed"}:
        text = f"{UNIT} is {active} ({state.get('SubState')}, result {result}, exit code {code})"
        yield failed(name, text, "journalctl -u iot-agent -n 50 shows why")
    else:
        yield warning(name, f"{UNIT} is installed and does not run", "sudo systemctl enable --now iot-agent")
    if state.get("UnitFileState") == "disabled":
        yield warning(name, f"{UNIT} does not start at boot", "sudo systemctl enable iot-agent")


def _systemctl(root: Path) -> dict[str, str]:
    """The unit's properties; none where there is no systemd."""
    program = shutil.which("systemctl")
    if program is None or not (root / "run/systemd/system").is_dir():
        return {}
    keys = "LoadState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,StatusText,UnitFileState"
    try:
        shown = subprocess.run(  # noqa: S603 - a program of the system, fixed arguments
            [program, "show", UNIT, f"--property={keys}"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(line.partition("=")[::2] for line in shown.splitlines())
