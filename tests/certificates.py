"""A certificate of one's own for localhost, which is its own authority; skips where openssl is not there."""

import shutil
import ssl
import subprocess

import pytest


def make_certificate(folder, name="cert", days=2):
    """(certificate, key) in PEM, of mode 600."""
    if not shutil.which("openssl"):
        pytest.skip("install Debian's package openssl")
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:127.1"]
    files = ["-days", str(days), "-keyout", str(key), "-out", str(cert)]
    authority = ["-addext", "basicConstraints=critical,CA:TRUE"]
    subprocess.run([*make, *files, *subject, *authority], check=True, capture_output=True)
    for file in (cert, key):
        file.chmod(0o600)
    return cert, key


def server_context(cert, key, asks_for=None):
    """Of a server with this certificate; `asks_for`: the authority of those that clients have to show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if asks_for is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks_for)
    return context
