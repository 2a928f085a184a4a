"""Debian's mosquitto on a port of its own, and a broker of a few lines that hangs and refuses as it is told."""

import contextlib
import shutil
import signal
import socket
import struct
import subprocess
import threading

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.waiting import wait_for


class Mosquitto:
    """Starts and stops on the same port, and keeps nothing when it is stopped. `options` are lines of its file."""

    def __init__(self, folder, *options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.process = folder, None
        lines = options or ("allow_anonymous true",)
        (folder / "mosquitto.conf").write_text("\n".join([f"listener {self.port} 127.0.0.1", *lines, "log_type all"]))
        self.start()

    def start(self):
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
        with (self.folder / "mosquitto.log").open("ab") as log:
            command = [program, "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers)

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20)

    def retained(self, *options):
        """As mosquitto_sub prints it, a line a message; what has not come within a second is not there."""
        command = ["mosquitto_sub", "-p", str(self.port), "-v", "-t", "#", "--retained-only", "-W", "1", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


@contextlib.contextmanager
def listening(port):
    """What somebody sees who subscribes to everything: (topic, payload, retained) as it comes."""
    seen, ready = [], threading.Event()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, m: seen.append((m.topic, m.payload, m.retain))
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.subscribe("#", 1)
    client.loop_start()
    assert ready.wait(40)
    try:
        yield seen
    finally:
        client.disconnect()
        client.loop_stop()


class FakeBroker:
    """Speaks as much of MQTT as a client that publishes needs. `acknowledges`, `knows_5`, `reads` (while it is set):
    what it does; `published`: (topic, payload) as they came, over all connections; `answer`: the reason of a CONNACK;
    `farewells`: those of a DISCONNECT.
    """

    def __init__(self):
        self.acknowledges = self.knows_5 = True
        self.closed = False
        self.reads = threading.Event()
        self.reads.set()
        self.answer = 0
        self.published, self.farewells, self.connects, self.open = [], [], [], []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.closed = True
        self.server.close()
        self.drop()
        self.reads.set()

    def drop(self, farewell=b""):
        """End all connections, after these bytes."""
        for one in self.open:
            with contextlib.suppress(OSError):
                one.sendall(farewell)
                one.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def of(self, topic):
        return [payload for found, payload in list(self.published) if found == topic]

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            version = 4
            self.reads.wait()
            while (head := stream.read(1)) and not self.closed:
                length, shift = 0, 0
                while True:
                    byte = stream.read(1)[0]
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = stream.read(length)
                kind = head[0] >> 4
                if kind == 1:
                    version = body[6]
                    self.connects.append(version)
                    if version == 5 and not self.knows_5:
                        connection.sendall(b"\x20\x02\x00\x01")
                        return
                    connection.sendall(b"\x20\x03\x00%c\x00" % self.answer if version == 5 else b"\x20\x02\x00\x00")
                elif kind == 3:
                    (size,) = struct.unpack("!H", body[:2])
                    mid, rest = body[2 + size : 4 + size], body[4 + size :]
                    self.published.append((body[2 : 2 + size].decode(), rest[1:] if version == 5 else rest))
                    if self.acknowledges:
                        connection.sendall(b"\x40\x02" + mid)
                elif kind == 8:
                    connection.sendall(
                        b"\x90\x04" + body[:2] + b"\x00\x00" if version == 5 else b"\x90\x03" + body[:2] + b"\x00"
                    )
                elif kind == 12:
                    connection.sendall(b"\xd0\x00")
                elif kind == 14:
                    self.farewells.append(body[0] if body else 0)
                    return
