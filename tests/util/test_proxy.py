"""The proxy that the environment names: which, for what, and that its password is a secret."""

import pytest

from agent.util.http import Answer
from agent.util.proxy import VARIABLES, place, proxy_for

SERVER = "http://influx.example:8086"


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variable", "url", "named"),
    [
        ("HTTP_PROXY", SERVER, True),
        ("http_proxy", SERVER, True),
        ("HTTPS_PROXY", SERVER, False),
        ("HTTPS_PROXY", "https://influx.example", True),
        ("ALL_PROXY", "https://influx.example", True),
    ],
)
def test_each_scheme_has_its_own_proxy(monkeypatch, variable, url, named):
    monkeypatch.setenv(variable, "http://proxy:3128")
    assert (proxy_for(url) is not None) == named


@pytest.mark.parametrize("direct", ["influx.example", ".example", "influx.example:8086", "*", "127.0.0.1,example"])
def test_no_proxy_names_what_is_reached_directly(monkeypatch, direct):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxy_for(SERVER).url == "http://proxy:3128"
    monkeypatch.setenv("NO_PROXY", direct)
    assert proxy_for(SERVER) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "[::1]", "localhost", "LocalHost.", "db.localhost"])
def test_this_very_machine_is_reached_directly(monkeypatch, host):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxy_for(f"http://{host}:8086") is None


@pytest.mark.parametrize(
    ("named", "url", "where"),
    [
        ("http://proxy:3128", "http://proxy:3128", ("proxy", 3128)),
        ("proxy:3128", "http://proxy:3128", ("proxy", 3128)),
        ("me:pa%40ss@proxy:3128", "http://proxy:3128", ("proxy", 3128)),
        ("https://me@proxy", "https://proxy", ("proxy", 443)),
    ],
)
def test_its_address_is_told_without_user_and_password(monkeypatch, named, url, where):
    monkeypatch.setenv("HTTP_PROXY", named)
    found = proxy_for(SERVER)
    assert (found.url, place(found)) == (url, where)


def test_promise_7_no_form_of_its_password_is_in_an_answer(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:pa%40ss@proxy:3128")
    found = proxy_for(SERVER)
    assert found.authorization.reveal() == "Basic bWU6cGFAc3M="
    assert "pa" not in repr(found).removeprefix("Proxy(url='http://proxy")
    text = "me:pa%40ss, pa@ss and bWU6cGFAc3M="
    shown = Answer(None, {"x": text}, text.encode(), text).without(found.hidden)
    assert shown.error == shown.headers["x"] == shown.body.decode() == "***, *** and ***"
