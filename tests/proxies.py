"""Debian's tinyproxy on a free port, as a real proxy on the way."""

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

HERE = "127.1"
"""127.0.0.1, spelled so that it does not look like this very machine, which is reached without a proxy."""
USER, PASSWORD = "garden", "s3same-open"


@contextmanager
def tinyproxy(folder, address="127.0.0.1", auth=True, rules=""):
    """Its URL, with user and password in it. `rules`: more of its configuration."""
    program = shutil.which("tinyproxy") or shutil.which("tinyproxy", path="/usr/sbin:/usr/bin")
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    config = folder / f"tinyproxy-{port}.conf"
    basic = f"BasicAuth {USER} {PASSWORD}\n" if auth else ""
    config.write_text(f"Port {port}\nListen {address}\nTimeout 20\nMaxClients 20\n{basic}{rules}")
    with (
        (folder / f"tinyproxy-{port}.log").open("wb") as log,
        subprocess.Popen([program, "-d", "-c", str(config)], stdout=log, stderr=log) as process,
    ):
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection((address, port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < until, log.name
                    time.sleep(0.02)
            who = f"{USER}:{PASSWORD}@" if auth else ""
            yield f"http://{who}{address}:{port}"
        finally:
            process.terminate()
            process.wait(20)


def seen_from_there(url):
    """The address of a server on loopback for whoever goes through a proxy."""
    return url.replace("127.0.0.1", HERE).replace("localhost", HERE)
