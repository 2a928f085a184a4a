"""The first chart of a dashboard on a slow phone: Chromium with a quarter of this machine's speed and Chrome's preset
"Slow 4G" (180 kB/s, 562.5 ms a round trip). Cold: nothing kept; warm: what may be kept is. `BENCH_BEFORE` names a
checkout of an earlier version, with its .venv, to be measured beside it in the same run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import agents, table
from bench.measure import Figure, Reference, Runs, unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = "/usr/bin/chromium"
CPU = 4  # times slower
SLOW_4G = {"offline": False, "latency": 562.5, "downloadThroughput": 180_000, "uploadThroughput": 84_375}
SCREEN = {"width": 390, "height": 844}
QUICK = {"runs": 1}
FIELDS = "Temperature={t},Humidity=48.25,Pressure=1013.5,CO2=521i,TVOC=120i,Lat=50.0874,Lon=14.4072"
# In the page: the moment at which a chart is on the screen, and by how much tasks were longer than 50 ms until then.
WATCH = """
window.blocked = 0;
new PerformanceObserver((list) => { for (const task of list.getEntries()) window.blocked += task.duration - 50; })
  .observe({ type: "longtask", buffered: true });
const look = () => {
  if (document.querySelector(".chart .js-line, .chart .uplot canvas")) {
    requestAnimationFrame(() => { window.firstChart = performance.now(); });
  } else requestAnimationFrame(look);
};
look();
"""


def measure(runs: int, folder: Path) -> list[Figure]:
    """Cold and warm until the first chart, bytes on the wire, blocked."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return [unmeasured("first chart on a slow phone", "s", "needs playwright (.[test]) and Debian's chromium")]
    if not Path(CHROMIUM).exists():
        return [unmeasured("first chart on a slow phone", "s", "needs Debian's package chromium")]
    centers = {"now": Path(sys.executable).with_name("iot-center")}
    if before := os.environ.get("BENCH_BEFORE"):
        centers["before"] = Path(before, ".venv", "bin", "iot-center")
    found = Runs()
    with contextlib.ExitStack() as stack:
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        urls = {name: stack.enter_context(center(program, folder / name)) for name, program in centers.items()}
        for _ in range(runs):
            for name, url in urls.items():
                context = browser.new_context(viewport=SCREEN, device_scale_factor=2, is_mobile=True, has_touch=True)
                for how in ("cold", "warm"):
                    for what, value in visit(context, f"{url}/dashboards/bench").items():
                        found.add(f"{name} {how} {what}", value)
                context.close()
        browser.close()

    def figure(name: str, how: str, what: str, unit: str, target: float | None) -> Figure:
        beside = [Reference("before", found.sample(f"before {how} {what}"))] if before else []
        return Figure(name, unit, found.sample(f"now {how} {what}"), target, references=tuple(beside))

    return [
        figure("first chart on a slow phone, cold", "cold", "chart", "s", 2.5),
        figure("first chart on a slow phone, warm", "warm", "chart", "s", 1.2),
        figure("dashboard on the wire, cold", "cold", "wire", "kB", 150),
        figure("dashboard on the wire, warm", "warm", "wire", "kB", None),
        figure("dashboard blocks the phone, cold", "cold", "blocked", "ms", 400),
        figure("dashboard blocks the phone, warm", "warm", "blocked", "ms", 400),
    ]


@contextlib.contextmanager
def center(program: Path, folder: Path) -> Iterator[str]:
    """A center on the embedded store, with a day of a point a minute."""
    folder.mkdir(parents=True)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with agents.program(str(program), "serve", "--embedded", "--data", str(folder), "--port", str(port)):
        asked = request(port, "POST", "/api/devices/bench")
        now = time.time_ns() // 10**9
        head = "environment,clientId=bench,device=bench,TemperatureSensor=bme280,HumiditySensor=bme280"
        lines = [f"{head} {FIELDS.format(t=20 + i % 60 / 10)} {(now - 60 * i) * 10**9}" for i in range(1440)]
        target = f"/api/v2/write?org={asked['influx_org']}&bucket={asked['influx_bucket']}"
        request(port, "POST", target, "\n".join(lines).encode(), Authorization=f"Token {asked['token']}")
        yield f"http://127.0.0.1:{port}"


def request(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
    """The JSON of an answer; tried until the center listens. RuntimeError for a refusal."""
    until = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
            continue
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{path} was answered with {answer.status}: {text[:200]!r}")
        return json.loads(text) if text else {}


def visit(context: Any, url: str) -> dict[str, float]:
    """One visit in a page of its own: s, kB, ms. The service worker is left out: its requests cannot be slowed."""
    page = context.new_page()
    cdp = context.new_cdp_session(page)
    received = [0]
    cdp.on("Network.loadingFinished", lambda event: received.__setitem__(0, received[0] + event["encodedDataLength"]))
    cdp.send("Network.enable")
    cdp.send("Network.setBypassServiceWorker", {"bypass": True})
    cdp.send("Network.emulateNetworkConditions", SLOW_4G)
    cdp.send("Emulation.setCPUThrottlingRate", {"rate": CPU})
    page.add_init_script(WATCH)
    page.goto(url, wait_until="commit", timeout=60_000)
    page.wait_for_function("() => window.firstChart", timeout=60_000)
    seen = page.evaluate("({ chart: window.firstChart / 1000 })")
    page.wait_for_timeout(2500)  # what comes after the first chart counts, too: the band, live values
    seen["blocked"] = page.evaluate("window.blocked")
    page.close()
    return {"chart": seen["chart"], "wire": received[0] / 1000, "blocked": seen["blocked"]}


if __name__ == "__main__":
    table.run(measure, QUICK)
