"""The socket of a service manager, as far as an agent under test can see: what it was told, in order."""

import socket
import time


class Notified:
    def __init__(self, folder):
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        self.said = []  # (monotonic seconds, assignment)

    def environment(self, watchdog_s=None):
        found = {"NOTIFY_SOCKET": str(self.path)}
        return found | ({"WATCHDOG_USEC": str(round(watchdog_s * 1e6))} if watchdog_s else {})

    def listen(self):
        """What came since the last time."""
        fresh = []
        while True:
            try:
                message = self._socket.recv(65_536)
            except BlockingIOError:
                self.said += fresh
                return [text for _, text in fresh]
            fresh += [(time.monotonic(), text) for text in message.decode().splitlines()]

    def wait_for(self, text, seconds=40):
        """The moment it was said (from now on)."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(said.startswith(text) for said in self.listen()):
                return time.monotonic()
            time.sleep(0.02)
        raise AssertionError(f"{text} was not said within {seconds} s, but {self.said[-5:]}")

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
