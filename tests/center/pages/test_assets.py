"""What is served to browsers: small, and just what it claims to be."""

from __future__ import annotations

import hashlib
import re
import sys

from center.pages.assets import load, uplot
from center.pages.stylesheet import needed

# dist/ of uPlot 1.6.31 as its author published it on npm.
UPSTREAM = {
    "uplot.iife.min.js": "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2",
    "uplot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_the_charts_script_is_byte_by_byte_what_its_author_published():
    assert {name: hashlib.sha256(uplot(name).read_bytes()).hexdigest() for name in UPSTREAM} == UPSTREAM


def test_all_that_a_dashboard_needs_is_less_than_80_kb():
    assert sum(len(load(name).gzipped) for name in ("app.css", "theme.js", "app.js", "live.js", "charts.js")) < 80_000


def test_a_style_sheet_keeps_the_rules_of_the_classes_that_are_used():
    css = (
        '@charset "UTF-8";/*! note */:root{--a:1}.btn,.card>.btn{color:red}.btn-check:checked+.btn,'
        ":not(.btn-check)+.btn:active{color:blue}.card{a:b}@media (min-width:9px){.d-lg-none{display:none}.card{c:d}}"
        "@keyframes spin{to{rotate:1turn}}@media print{.card{e:f}}"
    )
    assert needed(css, frozenset({"btn", "d-lg-none"})) == (
        ":root{--a:1}.btn{color:red}:not(.btn-check)+.btn:active{color:blue}"
        "@media (min-width:9px){.d-lg-none{display:none}}"
    )


def test_what_is_kept_for_the_time_without_a_network_is_there(client, monkeypatch):
    script = client.get("/sw.js")
    assert script.headers["Cache-Control"] == "no-cache"
    parts = re.search(r'const PARTS = \["([^\]]+)"\]', script.text)[1].split('", "')
    assert len(parts) == 4
    assert [client.get(part).status_code for part in parts] == [200] * 4
    with monkeypatch.context() as patch:  # another page without a network is another worker: browsers then take both
        patch.setattr(sys.modules["center.pages.assets"], "render_template", lambda *_, **__: "another page")
        assert client.get("/sw.js").text != script.text
    assert 'href=""' in client.get("/offline").text  # again what was asked for
    manifest = client.get("/manifest.webmanifest")
    assert manifest.content_type == "application/manifest+json"
    assert [client.get(icon["src"]).status_code for icon in manifest.json["icons"]] == [200] * 4
