"""TLS by a real nginx in front of the center, as docs/center.md describes it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

import pytest
import requests

from center.app import serve
from center.context import EXTENSION
from tests.center_helpers import HASH, PASSWORD, embedded_settings
from tests.certificates import make_certificate
from tests.from_address import From

pytestmark = pytest.mark.nginx
FORWARDS = """
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header Host $http_host;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Host $http_host;
client_max_body_size 60m;
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, port, behind, forwards=FORWARDS):
    """nginx with TLS on a port, in front of another; requests' argument verify."""
    cert, key = make_certificate(folder)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not write here
    (folder / "nginx.conf").write_text(
        f"daemon off; {user} worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert};"
        f"ssl_certificate_key {key}; location / {{ proxy_pass http://127.0.0.1:{behind}; {forwards} }} }} }}"
    )
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    with subprocess.Popen([program, "-c", folder / "nginx.conf", "-e", folder / "error.log"]) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            assert process.poll() is None, (folder / "error.log").read_text()
            yield str(cert)
        finally:
            process.terminate()


def browser(address, verify):
    session = requests.Session()
    session.mount("https://", From(address))
    session.verify, session.trust_env = verify, False
    return session


def log_in(session, url, password):
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', session.get(f"{url}/login").text)[1]
    sent = {"csrf_token": token, "password": password}
    return session.post(f"{url}/login", sent, headers={"Referer": f"{url}/login"}, allow_redirects=False)


def test_tls_secure_cookies_and_forwarded_addresses_behind_nginx(tmp_path, caplog):
    port = free_port()
    url = f"https://localhost:{port}"
    settings = embedded_settings(tmp_path / "data", proxies=1, public_url=url)
    with serve(settings) as center, nginx(tmp_path, port, center.port) as verify:
        registry = center.app.extensions[EXTENSION].registry
        registry.set_password_hash(HASH)
        mallory, alice = browser("127.0.0.9", verify), browser("127.0.0.10", verify)
        for _ in range(10):
            assert log_in(mallory, url, "wrong").status_code == 400
        assert log_in(mallory, url, PASSWORD).status_code == 429
        assert "wrong administrator password from 127.0.0.9" in caplog.text
        answer = log_in(alice, url, PASSWORD)
        assert answer.status_code == 302
        assert re.search(r"Secure.*HttpOnly.*SameSite=Strict", answer.headers["Set-Cookie"])
        assert alice.get(f"{url}/add").status_code == 200
        key = registry.make_enrollment_key()[1].reveal()
        sent = {"X-Enrollment-Key": key, "X-Device-Secret": "s" * 32}
        told = alice.post(f"{url}/api/devices/pi-1", headers=sent).json()
        assert told["influx_url"] == url
        write = f"{url}/api/v2/write?org={told['influx_org']}&bucket={told['influx_bucket']}"
        token = {"Authorization": f"Token {told['token']}"}
        for lines in (1, 10_000):  # the second is asked about before it is taken in
            body = "\n".join(f"environment,clientId=pi-1 Temperature=20.5 {n}" for n in range(lines))
            assert alice.post(write, body, headers=token).status_code == 204
        assert mallory.post(write, bytes(1_000_000), headers={"Authorization": "Token no"}).status_code == 401


def test_an_nginx_that_says_nothing_of_whom_it_speaks_for_opens_nothing(tmp_path):
    """With nothing but proxy_pass, in front of a center that has no password."""
    port = free_port()
    with serve(embedded_settings(tmp_path / "data")) as center, nginx(tmp_path, port, center.port, "") as verify:
        answer = browser("127.0.0.9", verify).get(f"https://localhost:{port}/api/devices")
        assert answer.status_code == 403
        assert "iot-center password" in answer.json()["message"]
        assert requests.get(f"{center.url}/api/devices", timeout=40).status_code == 200
