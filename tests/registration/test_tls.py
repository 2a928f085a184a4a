"""TLS towards the center: an authority of one's own, the system's, and what a wrong certificate is told."""

import pytest
from pytest_httpserver import HTTPServer

from tests.certificates import make_certificate, server_context
from tests.fake_center import FakeCenter


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))[0].parent


@pytest.fixture
def center(certificate):
    context = server_context(certificate / "cert.pem", certificate / "cert.key")
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        yield FakeCenter(server)


def test_a_center_that_asks_for_a_certificate_gets_it_and_so_does_its_influxdb(registrar, certificate):
    cert, key = certificate / "cert.pem", certificate / "cert.key"
    context = server_context(cert, key, asks_for=cert)
    with HTTPServer(host="localhost", port=0, ssl_context=context) as server:
        center = FakeCenter(server)
        center.place["influx_url"] = "https://localhost:8086"
        device = registrar(center, api="iot-center", ca_file=str(cert), client_cert=str(cert), client_key=str(key))
        device.step()
        assert device.target().token.reveal() in center.tokens["pi-7"]
        assert device.target().client_cert == (str(cert), str(key))
        center.place["influx_url"] = "https://eu-central-1-1.aws.cloud2.influxdata.com"
        public = registrar(
            center, "pi-9", api="iot-center", ca_file=str(cert), client_cert=str(cert), client_key=str(key)
        )
        public.step()
        assert public.target().client_cert is None
        refused = registrar(center, "pi-8", api="iot-center", ca_file=str(cert))
        refused.step()
        assert "set client_cert and client_key" in refused.snapshot().error
        assert "pi-8" not in center.tokens


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(center, registrar, certificate):
    center.place["influx_url"] = "https://localhost:8086"
    device = registrar(center, api="iot-center", require_tls=False, ca_file=str(certificate / "cert.pem"))
    device.step()
    assert device.target().token.reveal() in center.tokens["pi-7"]


def test_an_unknown_authority_is_refused_with_the_remedy(center, registrar, monkeypatch, certificate):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))  # the settings decide, not the environment
    device = registrar(center, api="iot-center")
    device.step()
    assert center.requests == []
    assert "TLS failed" in device.snapshot().error
    assert "ca_file" in device.snapshot().error


def test_a_missing_ca_file_is_named(center, registrar, tmp_path):
    device = registrar(center, api="iot-center", ca_file=str(tmp_path / "no-ca.pem"))
    device.step()
    assert "no-ca.pem" in device.snapshot().error


def test_a_certificate_of_another_name_is_refused(center, registrar, certificate):
    center.url = center.url.replace("localhost", "127.0.0.1")
    device = registrar(center, api="iot-center", ca_file=str(certificate / "cert.pem"))
    device.step()
    assert center.requests == []
    assert "TLS failed" in device.snapshot().error


def test_require_tls_refuses_to_write_where_the_center_names_plain_http(center, registrar, certificate):
    device = registrar(center, api="iot-center", require_tls=True, ca_file=str(certificate / "cert.pem"))
    device.step()
    assert device.target() is None
    assert "is plain http" in device.snapshot().error
    center.place["influx_url"] = "https://localhost:8086"


def test_the_private_authority_is_used_for_a_private_influxdb_and_not_for_a_public_one(center, registrar, certificate):
    ca_file = str(certificate / "cert.pem")
    center.place["influx_url"] = "https://db.lan:8086"
    device = registrar(center, api="iot-center", ca_file=ca_file)
    device.step()
    assert device.target().ca_file == ca_file
    center.place["influx_url"] = "https://eu-central-1-1.aws.cloud2.influxdata.com"
    public = registrar(center, "pi-8", api="iot-center", ca_file=ca_file)
    public.step()
    assert public.target().ca_file is None
