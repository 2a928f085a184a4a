"""A fake /dev/i2c-N for client processes: the unmodified Linux stack reads register-level chips through it.

It speaks the socket protocol of Debian's umockdev preload library (seen with 0.17.16; it is internal to that library).
Run the client with `env()`. `chips` may change while it runs; `fail` queues errnos for the next transfers (0 lets one
pass); `slave_errno` makes addressing fail, as a chip held by a kernel driver does. The folder's path must stay short.

`python -m tests.fake_i2c_bus COMMAND …` runs a command on a machine with one of each of tests/shelf_chips.py.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

I2C_SLAVE, I2C_SLAVE_FORCE, I2C_FUNCS, I2C_RDWR = 0x703, 0x706, 0x705, 0x707
IOCTL, READ, WRITE = 1, 7, 8  # requests
DONE, READ_MEMORY, WRITE_MEMORY = 3, 5, 6  # answers, and what is asked of the client meanwhile


class FakeI2C:
    def __init__(self, chips, bus=1):
        self.chips, self.fail, self.slave_errno, self.written = chips, [], 0, []
        self._folder = tempfile.TemporaryDirectory(prefix="i2c.")
        root = Path(self._folder.name)
        for folder in ("dev", "ioctl/dev", "sys"):
            (root / folder).mkdir(parents=True)
        self.node = root / f"dev/i2c-{bus}"
        self.node.touch()
        root.chmod(0o755)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(root / f"ioctl/dev/i2c-{bus}"))
        (root / f"ioctl/dev/i2c-{bus}").chmod(0o777)
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def env(self):
        return {"LD_PRELOAD": "libumockdev-preload.so.0", "UMOCKDEV_DIR": self._folder.name}

    def add_one_wire(self, sensor, text):
        """A sensor on the one-wire bus, as sysfs shows it."""
        folder = self.node.parents[1] / "sys/bus/w1/devices" / sensor
        folder.mkdir(parents=True)
        (folder / "w1_slave").write_text(text)

    def close(self):
        self._server.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while True:
            try:
                connection = self._server.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        client = _Client(self, connection)
        with connection:
            while len(request := connection.recv(24, socket.MSG_WAITALL)) == 24:
                try:
                    result, number = client.handle(*struct.unpack("3L", request)), 0
                except OSError as error:
                    result, number = -1, error.errno
                try:
                    connection.sendall(struct.pack("lll", DONE, result, number))
                except OSError:
                    return


class _Client:
    """One open file of a client process."""

    def __init__(self, bus, connection):
        self.bus, self.connection, self.address = bus, connection, None

    def handle(self, request, first, second):
        if request == IOCTL and first in (I2C_SLAVE, I2C_SLAVE_FORCE):
            if self.bus.slave_errno:
                raise OSError(self.bus.slave_errno, "")
            self.address = second & 0x7F
            return 0
        if request == IOCTL and first == I2C_FUNCS:
            self._poke(second, struct.pack("L", 0x0EFF0009))
            return 0
        if request == IOCTL and first == I2C_RDWR:
            return self._messages(second)
        if request not in (READ, WRITE):
            raise OSError(errno.ENOTTY, "")
        if self.bus.fail and (number := self.bus.fail.pop(0)):
            raise OSError(number, "")
        chip = self.bus.chips.get(self.address)
        if chip is None:
            raise OSError(errno.EREMOTEIO, "")
        if request == READ:
            self._poke(first, chip.read(second))
        else:
            message = self._peek(first, second)
            self.bus.written.append((self.address, message))
            chip.write(message)
        return second

    def _messages(self, place):
        """struct i2c_rdwr_ioctl_data: messages with no stop between them: address, flags (1: read), size, buffer."""
        messages, count = struct.unpack("=QI", self._peek(place, 12))
        for number in range(count):
            address, flags, size, buffer = struct.unpack("@HHHP", self._peek(messages + 16 * number, 16))
            if self.bus.fail and (failure := self.bus.fail.pop(0)):
                raise OSError(failure, "")
            chip = self.bus.chips.get(address)
            if chip is None:
                raise OSError(errno.EREMOTEIO, "")
            if flags & 1:
                self._poke(buffer, chip.read(size))
            else:
                chip.write(self._peek(buffer, size))
        return count

    def _peek(self, address, size):
        if not size:
            return b""
        self.connection.sendall(struct.pack("3L", READ_MEMORY, address, size))
        return self.connection.recv(size, socket.MSG_WAITALL)

    def _poke(self, address, data):
        self.connection.sendall(struct.pack("3L", WRITE_MEMORY, address, len(data)) + data)


def environment(bus, **more):
    """The environment of a client process on this bus."""
    return {**os.environ, **bus.env(), **more}


if __name__ == "__main__":
    from tests.shelf_chips import ONE_WIRE, Sht31, shelf

    with FakeI2C({**shelf(), 0x45: Sht31()}) as bus:
        bus.add_one_wire("28-0316a279c8ff", ONE_WIRE)
        sys.exit(subprocess.run(sys.argv[1:], env=environment(bus), check=False).returncode)
