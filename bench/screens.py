"""Pictures of every page, for the documents and for the test that compares with them: `python -m bench.screens` writes
docs/screens/ (with names: those of it), at 1440 and 390 pixels, light and dark, of a center that stands still.
"""

from __future__ import annotations

import base64
import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from center.alerts import kept
from center.app import serve
from center.context import EXTENSION
from center.pages.alerts import EXAMPLES
from center.pages.virtual import point_at
from center.profiles import DeviceSettings, Profile, keep_profile, keep_told
from center.settings import EmbeddedSettings, ServerSettings, Settings
from center.stores.telemetry import Point

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENS = Path(__file__).parents[1] / "docs" / "screens"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
MOMENT_S = 1_795_608_000  # 25 November 2026, 12:00 UTC
SECOND = 10**9
DAY_S = 86_400
PAGES = {
    "home": "/",
    "devices": "/devices",
    "fleet": "/fleet",
    "device": "/devices/greenhouse",
    "sensors": "/devices/balcony",
    "dashboard": "/dashboards/greenhouse",
    "compare": "/dashboards/balcony?range=7d&with=greenhouse&field=Temperature&field=Humidity&line=Temperature:0",
    "alerts": "/alerts",
    "rule": "/alerts/rules/frost",
    "query": "/query?device=greenhouse&field=Temperature&range=7d&window=1h&fn=mean",
    "write": "/write",
    "buckets": "/buckets",
    "virtual": "/virtual",
    "add": "/add",
    "keys": "/enrollment-keys",
    "help": "/help",
    "problem": "/devices/nobody",
    "offline": "/offline",
}
WIDTHS = {1440: (1600, 0.6), 390: (1900, 0.8)}  # the height that is shown at most, and how much smaller


@contextlib.contextmanager
def standing_center(folder: Path) -> Iterator[str]:
    """The address of a center whose clock stands, with devices of every kind."""
    import time_machine

    settings = Settings(embedded=True, store=EmbeddedSettings(data=str(folder)), server=ServerSettings(port=0))
    with time_machine.travel(MOMENT_S, tick=False), serve(settings) as running:
        furnish(running.app.extensions[EXTENSION])
        yield running.url


def furnish(center: Any) -> None:
    """A week of weather, a board with two sensors, one that fell silent, one that waits, one that nobody registered."""
    for device_id in ("greenhouse", "balcony", "attic", "new-board"):
        center.registry.register(device_id, administrator=True)
    center.telemetry.write([point_at("greenhouse", MOMENT_S - 5 - 300 * n) for n in range(2016)])
    center.telemetry.write([point_at("attic", MOMENT_S - 4 * 3600 - 300 * n) for n in range(1000)])
    for sensor, kind, warmer in (("inside", "bme280", 12.0), ("outside", "sht4x", -1.5)):
        tags = {"clientId": "balcony", "device": "balcony", "sensor": sensor}
        tags |= {"TemperatureSensor": kind, "HumiditySensor": kind}
        weather = [point_at("balcony", MOMENT_S - 8 - 300 * n) for n in range(2016)]
        center.telemetry.write([Point(p.measurement, tags, _changed(p.fields, warmer), p.time_ns) for p in weather])
    own = {"clientId": "greenhouse", "device": "greenhouse"}
    health = {"measured": 20_160, "delivered": 20_157, "rejected": 3, "pending": 0, "clock_good": 1, "load": 0.3}
    center.telemetry.write([Point("agent", own, health, (MOMENT_S - 20) * SECOND)])
    center.telemetry.write([point_at("stranger", MOMENT_S - 60 * n) for n in range(1, 30)])
    asked = DeviceSettings(interval=300.0, offset={"Temperature": -0.8})
    keep_profile(center.registry, "greenhouse", Profile("Greenhouse", "Garden", "Behind the house.", asked))
    quantities = ["Temperature", "Humidity", "Pressure", "CO2", "TVOC"]
    sensor = {"name": "bench", "kind": "virtual_bme280", "interval": 60, "report": "mean", "file": ["interval"]}
    sensor |= {"offset": {"Temperature": -0.8}, "quantities": quantities}
    told = {"version": "0.2.0", "address": "192.168.1.20", "remote": "local", "refresh": 300, "sensors": [sensor]}
    keep_told(center.registry, "greenhouse", told)
    frost = EXAMPLES["frost"]
    kept.keep_rule(center.registry, "frost", replace(frost, scope="group", of="Garden"))
    words = f"{frost.words}\nGreenhouse (greenhouse):"
    for number, event, hours, value in ((1, "begins", 8, "1.4 °C"), (2, "ends", 4, "3.1 °C, after 4 h")):
        title, at_ns = frost.name if number == 1 else f"Over: {frost.name}", (MOMENT_S - 3600 * hours) * SECOND
        kept.keep_event(center.registry, kept.Message(number, at_ns, "frost", event, title, f"{words} {value}", {}))
    center.registry.make_enrollment_key(note="Greenhouses", uses=5, expires_ns=(MOMENT_S + 7 * DAY_S) * SECOND)


def _changed(fields: Any, warmer: float) -> dict[str, float]:
    warm, damp = float(fields["Temperature"]), float(fields["Humidity"])
    return {"Temperature": round(warm / 2 + warmer, 2), "Humidity": round(damp * 0.7 - warmer, 2)}


def open_page(browser: Any, width: int, theme: str) -> Any:
    """A page as high as what is shown of any, so that every chart is drawn, with the center's clock."""
    height, _ = WIDTHS[width]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        reduced_motion="reduce",
        timezone_id="Europe/Prague",
        locale="en-GB",
        service_workers="block",
    )
    page = context.new_page()
    page.clock.set_fixed_time(MOMENT_S)
    return page


def go(page: Any, url: str) -> None:
    """Until everything is drawn."""
    page.goto(url, wait_until="networkidle")
    if page.locator("[data-charts]").count():
        page.wait_for_function("() => document.body.dataset.drawn")
        page.wait_for_function("() => document.querySelector('.plot canvas')")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(page: Any) -> bytes:
    """What is shown of the page as WebP, no higher than the page itself."""
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    _, scale = WIDTHS[width]
    high = min(height, page.evaluate("document.querySelector('main').getBoundingClientRect().bottom"))
    clip = {"x": 0, "y": 0, "width": width, "height": high, "scale": scale}
    cdp = page.context.new_cdp_session(page)
    shot = cdp.send("Page.captureScreenshot", {"format": "webp", "quality": 60, "clip": clip})
    return base64.b64decode(shot["data"])


def main() -> None:
    from playwright.sync_api import sync_playwright

    SCREENS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, standing_center(Path(folder)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for width in WIDTHS:
            for theme in ("light", "dark"):
                page = open_page(browser, width, theme)
                for name in sys.argv[1:] or PAGES:
                    go(page, url + PAGES[name])
                    (SCREENS / f"{name}-{width}-{theme}.webp").write_bytes(picture(page))
                page.context.close()
        browser.close()
    size = sum(file.stat().st_size for file in SCREENS.iterdir())
    print(f"{SCREENS}: {size / 1e6:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
