"""Style sheets, scripts and icons: all local, gzipped once, named by their content and so cached for ever; and what
makes the center installable: manifest, service worker and the page that it shows without a network.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, abort, jsonify, render_template, request, url_for
from markupsafe import Markup

from center.pages.stylesheet import needed

assets = Blueprint("assets", __name__, template_folder="templates")

_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_A_YEAR = 365 * 24 * 3600
_WORD = re.compile(r"-?[A-Za-z_][\w-]*")
_CENTER = files("center")


def _bootstrap(path: str) -> Traversable:
    return files("flask_bootstrap").joinpath("static", "bootstrap5", *path.split("/"))


def uplot(name: str) -> Traversable:
    """A file of uPlot 1.6.31 as the package youplot carries it; the package itself is not imported."""
    spec = find_spec("youplot")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("youplot, which brings the charts' script, is not installed: install .[center]")
    return Path(spec.submodule_search_locations[0], "vendor", name)


def _own(*names: str) -> list[Traversable]:
    return [_CENTER.joinpath("static", name) for name in names]


# The whole of what can be asked for, each joined from its parts: a name never reaches the file system.
_SOURCES: dict[str, tuple[list[Traversable], str]] = {
    "app.css": ([_bootstrap("css/bootstrap.min.css"), uplot("uplot.min.css"), *_own("app.css", "charts.css")], _CSS),
    "theme.js": (_own("theme.js"), _JS),
    "app.js": (_own("prefs.js", "app.js", "gauges.js"), _JS),
    "charts.js": (
        [
            uplot("uplot.iife.min.js"),
            *_own("sun.js", "touch.js", "reading.js", "chart.js", "view.js", "controls.js", "board.js"),
        ],
        _JS,
    ),
    "live.js": (_own("live.js"), _JS),
    "backfill.js": (_own("backfill.js"), _JS),
    "icon.svg": (_own("icon.svg"), "image/svg+xml"),
    "icon-192.png": (_own("icon-192.png"), "image/png"),
    "icon-512.png": (_own("icon-512.png"), "image/png"),
}


_OFFLINE = ("app.css", "theme.js", "icon.svg")  # what offline.html shows itself with


@dataclass(frozen=True, slots=True)
class Asset:
    digest: str
    plain: bytes
    gzipped: bytes
    mimetype: str


def _part(source: Traversable) -> bytes:
    return needed(source.read_text(), _words()).encode() if source.name == "bootstrap.min.css" else source.read_bytes()


@cache
def _words() -> frozenset[str]:
    """Every word of the templates and scripts, so every class that a page can have."""
    texts = (
        path.read_text()
        for folder in ("templates", "static", "pages")
        for path in _CENTER.joinpath(folder).iterdir()
        if path.name.endswith((".html", ".js", ".py"))
    )
    return frozenset(word for text in texts for word in _WORD.findall(text))


@cache
def load(name: str) -> Asset:
    """The asset of this name, read and compressed at its first use. KeyError for another name."""
    sources, mimetype = _SOURCES[name]
    plain = b"\n".join(_part(source) for source in sources)
    digest = hashlib.sha256(plain).hexdigest()[:12]
    return Asset(digest, plain, gzip.compress(plain, 9, mtime=0), mimetype)


def asset_url(name: str) -> str:
    return url_for("assets.serve", digest=load(name).digest, name=name)


@assets.get("/assets/<digest>/<name>")
def serve(digest: str, name: str) -> Response:
    if name not in _SOURCES or (asset := load(name)).digest != digest:
        abort(404)
    zipped = request.accept_encodings.quality("gzip") > 0
    response = Response(asset.gzipped if zipped else asset.plain, content_type=asset.mimetype)
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = f"public, max-age={_A_YEAR}, immutable"
    response.headers["Vary"] = "Accept-Encoding"
    return response


@assets.get("/manifest.webmanifest")
def manifest() -> Response:
    """What a phone needs to put the center on its home screen."""
    icons = [
        {"src": asset_url("icon.svg"), "type": "image/svg+xml", "sizes": "any"},
        {"src": asset_url("icon-192.png"), "type": "image/png", "sizes": "192x192"},
        {"src": asset_url("icon-512.png"), "type": "image/png", "sizes": "512x512", "purpose": "any"},
        {"src": asset_url("icon-512.png"), "type": "image/png", "sizes": "512x512", "purpose": "maskable"},
    ]
    response = jsonify(
        id="/",
        name="IoT Center",
        short_name="IoT Center",
        start_url="/",
        scope="/",
        display="standalone",
        background_color="#0d1218",
        theme_color="#0f766e",
        icons=icons,
    )
    response.content_type = "application/manifest+json"
    response.headers["Cache-Control"] = "no-cache"
    return response


@assets.get("/offline")
def offline() -> Response:
    """What is shown without a network: the same for everyone, with nothing that was measured."""
    return Response(render_template("offline.html", asset_url=asset_url), headers={"Cache-Control": "no-cache"})


@assets.get("/sw.js")
def service_worker() -> Response:
    """It lies at the root, since a worker reaches what lies below it; a new release names its files anew."""
    page = render_template("offline.html", asset_url=asset_url)  # kept by the worker too: it names its style by content
    release = hashlib.sha256("".join([page, *(load(name).digest for name in _SOURCES)]).encode()).hexdigest()[:12]
    parts = ", ".join(f'"{asset_url(name)}"' for name in _OFFLINE)
    script = _own("sw.js")[0].read_text().replace("RELEASE", release).replace('"PARTS"', parts)
    return Response(script, content_type=_JS, headers={"Cache-Control": "no-cache"})


@cache
def _symbols() -> dict[str, tuple[str, str]]:
    sprite = _bootstrap("icons/bootstrap-icons.svg").read_text()
    found = re.finditer(r'<symbol class="[^"]*" viewBox="([^"]*)" id="([^"]*)">(.*?)</symbol>', sprite, re.DOTALL)
    return {m[2]: (m[1], m[3]) for m in found}


@cache
def icon(name: str) -> Markup:
    """A Bootstrap icon as inline SVG in the colour of the text, silent to screen readers: the text beside it speaks."""
    box, path = _symbols()[name]
    return Markup(  # noqa: S704 - the drawing comes from the installed package, not from anyone's input
        f'<svg class="icon" viewBox="{box}" width="16" height="16" fill="currentColor" aria-hidden="true">{path}</svg>'
    )
