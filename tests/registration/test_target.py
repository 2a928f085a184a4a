"""URLs, what is local, and the [influxdb] way to a target."""

import ssl
from pathlib import Path

import pytest

from agent.config.limits import check_url
from agent.config.settings import CenterSettings, InfluxSettings
from agent.registration.answers import RegistrationError
from agent.registration.credentials import Credentials
from agent.registration.policy import target_of
from agent.registration.static_token import StaticToken
from agent.registration.target import DEBIAN_BUNDLE, has_private_authority, is_private, plain_http_warning, trust_store
from agent.util.loops import LoopThread
from agent.util.secret import Secret
from tests.unsearchable import hide


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("192.168.1.5", True),
        ("10.0.0.1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("172.31.255.255", True),
        ("169.254.1.1", True),
        ("::ffff:10.1.2.3", True),
        ("Center.LOCAL.", True),
        ("center.home.arpa", True),
        ("center", False),
        ("center.lan", False),
        ("center.internal", False),
        ("172.32.0.1", False),
        ("192.0.2.1", False),  # for documentation, as the next two
        ("198.51.100.1", False),
        ("2001:db8::1", False),
        ("198.18.0.1", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),  # a provider's
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("example.com", False),
        ("local.example.com", False),
        ("2001:4860::1", False),
    ],
)
def test_what_counts_as_private(host, local):
    assert is_private(host) is local
    assert (plain_http_warning(f"http://[{host}]:1" if ":" in host else f"http://{host}:1") is None) is local
    assert plain_http_warning("https://example.com") is None


def test_a_name_that_no_public_authority_certifies_is_taken_with_the_centers_own():
    assert all(map(has_private_authority, ("center", "Center.LAN.", "db.internal", "10.0.0.1", "db.local")))
    assert not any(map(has_private_authority, ("example.com", "8.8.8.8", "lan.example.com")))


def of_center(named, **settings):
    """What target_of() says: the target's URL, or the error."""
    told = Credentials("https://c.example", "pi-7", "iot-center", Secret("abc"), url=named, org="o", bucket="b")
    try:
        return target_of(CenterSettings(**{"url": "https://c.example"} | settings), told).url
    except RegistrationError as error:
        return str(error)


@pytest.mark.parametrize("url", ["http://c.example:8086", "http://127.0.0.1:8086", "http://10.0.0.1:8086"])
def test_promise_7_a_center_with_tls_cannot_have_the_token_sent_without(url):
    assert "nothing is sent there" in of_center(url)
    assert f'influx_url = "{url}"' in of_center(url)
    assert "nothing is sent there" in of_center(url, remote="prefer", influx_url="https://db.example")
    assert of_center(url, url="http://c.example") == url


@pytest.mark.parametrize("remote", ["local", "prefer"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_configuration_can_allow_it(remote, slash):
    url = "http://db.example:8086"
    assert of_center(url, remote=remote, influx_url=url + slash).rstrip("/") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8086",
        "ftp://h",
        "http://",
        "http://u:p@h",
        "http://h?x=1",
        "http://h#f",
        "http://h:x",
        "http://h:99999",
        "http://h\n",
        "http://h h",
        "http://hé",
        "javascript:alert(1)",
        "//h",
        "http://[::1",
        "http://h/\r\nX: 1",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(ValueError, match=r"URL|http://host"):
        check_url(url)


def test_a_slash_at_the_end_is_dropped():
    assert check_url("http://h:8086/") == "http://h:8086"
    assert check_url("https://h/influx/") == "https://h/influx"


def test_the_systems_trust_store_is_used_unless_a_file_is_named(tmp_path):
    assert trust_store("/my/ca.pem") == "/my/ca.pem"
    assert "site-packages" not in str(trust_store(None))


def test_a_trust_store_of_the_system_that_may_not_be_looked_at_leaves_the_bundled_one(monkeypatch):
    for folder in {DEBIAN_BUNDLE.parent, Path(ssl.get_default_verify_paths().openssl_cafile).parent}:
        hide(monkeypatch, folder)
    assert trust_store(None) is True


# The [influxdb] way


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def influx(**settings):
    return InfluxSettings(**{"url": "http://127.0.0.1:8086", "org": "my-org", "bucket": "sly's Bucket"} | settings)


def test_a_token_in_the_settings_is_a_target_at_once():
    fixed = StaticToken(influx(token=Secret("abc")), "pi-7", now=Clock())
    target = fixed.target()
    assert (target.url, target.org, target.bucket) == ("http://127.0.0.1:8086", "my-org", "sly's Bucket")
    assert target.token == Secret("abc")
    assert fixed.snapshot().state == "registered"
    assert "abc" not in repr(fixed.snapshot())


def test_a_refused_token_is_read_again_from_its_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o600)
    fixed = StaticToken(influx(token_file=str(path)), "pi-7", now=Clock())
    fixed.renew()
    fixed.step()
    assert fixed.target().token == Secret("old")  # kept meanwhile: the server may take it again
    assert fixed.snapshot().state == "refused"
    assert str(path) in fixed.snapshot().error
    path.write_text("new\n")
    fixed.step()
    assert fixed.target().token == Secret("new")
    assert fixed.snapshot().state == "registered"


def test_a_token_that_the_server_takes_again_is_not_shown_as_refused(tmp_path):
    fixed = StaticToken(influx(token=Secret("abc")), "pi-7", now=Clock())
    fixed.renew()
    fixed.step()
    assert fixed.snapshot().state == "refused"
    fixed.accepted()
    assert (fixed.snapshot().state, fixed.snapshot().error) == ("registered", None)


def test_a_token_that_works_is_not_read_again(tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o600)
    fixed = StaticToken(influx(token_file=str(path)), "pi-7", now=Clock())
    path.unlink()
    fixed.step()
    assert fixed.target().token == Secret("old")


def test_a_token_file_that_comes_later_is_found_and_until_then_said_once(tmp_path, caplog):
    path = tmp_path / "token"
    fixed = StaticToken(influx(token_file=str(path)), "pi-7", now=Clock())
    fixed.step()
    fixed.step()
    assert fixed.target() is None
    assert fixed.snapshot().state == "waiting"
    assert caplog.text.count(str(path)) == 1
    path.write_text("new")
    path.chmod(0o644)
    fixed.step()
    assert "chmod o-rwx" in fixed.snapshot().error
    path.chmod(0o640)
    fixed.step()
    assert fixed.target().token == Secret("new")


def test_a_systemd_credential_is_the_token_when_none_is_named(tmp_path, monkeypatch):
    (tmp_path / "influxdb.token").write_text("from-systemd")
    (tmp_path / "influxdb.token").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert StaticToken(influx(), "pi-7", now=Clock()).target().token == Secret("from-systemd")


def test_a_refused_token_in_the_settings_says_where_it_stands(caplog):
    fixed = StaticToken(influx(token=Secret("abc")), "pi-7", now=Clock())
    for _ in range(50):
        fixed.renew()
        fixed.step()
    assert "[influxdb] token" in fixed.snapshot().error
    assert caplog.text.count("refuses this token") == 1


def test_it_ends_when_it_is_told_to():
    thread = LoopThread("registration", StaticToken(influx(token=Secret("abc")), "pi-7", now=Clock()))
    thread.stop()
    thread.join(40)
    assert not thread.is_alive()


def test_settings_never_show_a_token():
    assert "abc" not in repr(influx(token=Secret("abc")))
    assert CenterSettings(url="http://c").require_tls is False
