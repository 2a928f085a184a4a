"""Style sheets, scripts and icons: all local, gzipped once, named by their content and so cached for ever."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from flask import Blueprint, Response, abort, request, url_for
from markupsafe import Markup

assets = Blueprint("assets", __name__)

_CSS, _JS = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
_A_YEAR = 365 * 24 * 3600


def _bootstrap(path: str) -> Traversable:
    return files("flask_bootstrap").joinpath("static", "bootstrap5", *path.split("/"))


def _own(name: str) -> Traversable:
    return files("center").joinpath("static", name)


# The whole of what can be asked for: a name never reaches the file system.
_SOURCES: dict[str, tuple[Traversable, str]] = {
    "bootstrap.css": (_bootstrap("css/bootstrap.min.css"), _CSS),
    "bootstrap.js": (_bootstrap("js/bootstrap.min.js"), _JS),
    "plotly.js": (files("plotly").joinpath("package_data", "plotly.min.js"), _JS),
    "app.css": (_own("app.css"), _CSS),
    "theme.js": (_own("theme.js"), _JS),
    "app.js": (_own("app.js"), _JS),
    "charts.js": (_own("charts.js"), _JS),
    "live.js": (_own("live.js"), _JS),
    "backfill.js": (_own("backfill.js"), _JS),
    "icon.svg": (_own("icon.svg"), "image/svg+xml"),
}
# plotly's bundle sets two inline style sheets, which stay the same for a version (pinned in pyproject.toml).
PLOTLY_STYLE_HASHES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    "'sha256-ji27qzEtxXZW+7dun6UwjHXJ18e6WAin1VvNtkzIE/o='",
)


@dataclass(frozen=True, slots=True)
class Asset:
    digest: str
    plain: bytes
    gzipped: bytes
    mimetype: str


@cache
def load(name: str) -> Asset:
    """The asset of this name, read and compressed at its first use (plotly: 0.15 s). KeyError for another name."""
    source, mimetype = _SOURCES[name]
    plain = source.read_bytes()
    digest = hashlib.sha256(plain).hexdigest()[:12]
    return Asset(digest, plain, gzip.compress(plain, 6, mtime=0), mimetype)


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
