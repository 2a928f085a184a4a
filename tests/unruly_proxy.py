"""A way to a server on which anything can happen: cuts, silence, single bytes, others' answers, lost answers."""

import contextlib
import email.utils
import json
import random
import socket
import struct
import threading
import time

MODES = ("pass", "refuse", "hang", "cut", "trickle", "lose answers", "500", "503", "429", "401")
WORDS = {
    "500": {"code": "internal error", "message": "unexpected error writing points to database: timeout"},
    "503": {"code": "unavailable", "message": "busy"},
    "429": {"code": "too many requests", "message": "too many requests"},
    "401": {"code": "unauthorized", "message": "unauthorized access"},
}


def reset(connection):
    """Ends it as a cut line does, not as a goodbye."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class UnrulyProxy:
    """`with UnrulyProxy(port, seed) as proxy:` passes on to that port of loopback, at proxy.url, until set(mode).

    A mode takes effect at once: what is under way is cut. `requests` counts what came through to the server.
    """

    def __init__(self, port, seed):
        self.target, self.mode = ("127.0.0.1", port), "pass"
        self._rng, self._lock, self._open = random.Random(seed), threading.Lock(), set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listener.close()
        self.set("pass")

    def set(self, mode):
        with self._lock:
            self.mode, under_way = mode, list(self._open)
        for connection in under_way:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, self.mode), daemon=True).start()

    def _serve(self, connection, mode):
        with self._lock:
            self._open.add(connection)
        try:
            if mode == "hang":
                self._over.wait(120)
            elif mode in WORDS:
                self._answer(connection, mode)
            elif mode != "refuse":
                self._pass(connection, mode)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            reset(connection)

    def _answer(self, connection, mode):
        """One answer to each request, in the server's words."""
        file = connection.makefile("rb")
        while file.readline():
            length = 0
            while (line := file.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            file.read(length)
            body = json.dumps(WORDS[mode]).encode()
            head = f"HTTP/1.1 {mode} X\r\nContent-Type: application/json; charset=utf-8\r\n"
            head += f"Content-Length: {len(body)}\r\n"
            if mode in {"503", "429"}:
                head += "Retry-After: 1\r\n"
            date = email.utils.formatdate(usegmt=True)
            connection.sendall(f"{head}Date: {date}\r\n\r\n".encode() + body)

    def _pass(self, connection, mode):
        with socket.create_connection(self.target, timeout=10) as server:
            server.settimeout(None)
            left = self._rng.randrange(3000) if mode == "cut" else 10**18  # bytes, either way
            back = threading.Thread(target=self._pump, args=(server, connection, left, mode), daemon=True)
            back.start()
            self._pump(connection, server, left, "pass")
            reset(server) if mode == "cut" else None
            back.join(30)

    @staticmethod
    def _pump(source, to, left, mode):
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(min(left, 1 if mode == "trickle" else 65536))):
                left -= len(data)
                if mode == "lose answers":
                    break
                if mode == "trickle":
                    time.sleep(0.05)
                to.sendall(data)
        for one in (source, to):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
