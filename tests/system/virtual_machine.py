"""A machine under QEMU with a disk of its own, for what only a power cut shows: what was synced and what was not."""

import json
import lzma
import shutil
import subprocess
import threading

from tests.system.machines import call, once, wait_for

MODULES = {
    *("virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"),
    *("crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4", "i2c-dev", "i2c-smbus", "i2c-stub"),
}
INIT = """#!/busybox sh
/busybox mkdir -p /dev /proc /sys /new
/busybox mount -t devtmpfs dev /dev
for round in 1 2 3 4 5 6; do
  for module in /modules/*; do
    case $module in *i2c-stub.ko) options=chip_addr=0x77 ;; *) options= ;; esac
    /busybox insmod $module $options 2>/dev/null
  done
done
/busybox mount -t ext4 -o rw /dev/vda /new && exec /busybox switch_root /new /lib/systemd/systemd
echo cannot start; exec /busybox sleep 1000
"""


def kernel(busybox):
    """(kernel, initramfs) of this Debian, with what the root on a virtio disk needs, and a stub of an I2C bus."""
    with once("kernel") as folder:
        if not folder.exists():
            new = folder.with_name("kernel.new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            listed = subprocess.run(
                ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=True
            ).stdout
            package = next(line.split()[-1] for line in listed.splitlines() if "Depends: linux-image" in line)
            call("apt-get", "download", "-qq", package, cwd=new, stderr=subprocess.DEVNULL)
            call("dpkg-deb", "-x", next(new.glob("*.deb")), new / "files")
            shutil.copy(next(new.glob("files/boot/vmlinuz-*")), new / "vmlinuz")
            (new / "initramfs").write_bytes(archive({**modules(new), "busybox": busybox.read_bytes(), "init": INIT}))
            shutil.rmtree(new / "files")
            for package in new.glob("*.deb"):
                package.unlink()
            new.rename(folder)
        return folder / "vmlinuz", folder / "initramfs"


def modules(folder):
    found = {}
    for path in sorted(folder.glob("files/**/modules/**/*.ko*")):
        name = path.name.partition(".")[0]
        if name in MODULES:
            data = path.read_bytes()
            found[f"modules/{name}.ko"] = lzma.decompress(data) if path.suffix == ".xz" else data
    return found


def archive(files):
    """A cpio file, format newc, as the kernel unpacks it."""
    parts = []

    def add(name, mode, data):
        fields = [len(parts) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts.append(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
        add(folder, 0o40755, b"")
    for name, data in files.items():
        add(name, 0o100755, data.encode() if isinstance(data, str) else data)
    add("TRAILER!!!", 0, b"")
    return b"".join(parts)


class VirtualMachine:
    """Boots `disk` (an ext4 image). What it prints on its serial line as `STATE {json}` is kept in `states`."""

    def __init__(self, disk, busybox):
        self.disk, self.states, self.lines = disk, [], []
        image, initramfs = kernel(busybox)
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
                *("-accel", "tcg,thread=multi", "-m", "768", "-smp", "2"),
                *("-kernel", image, "-initrd", initramfs, "-append", "console=ttyS0 quiet systemd.show_status=no"),
                *("-drive", f"file={disk},format=raw,if=virtio,cache=writeback"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").strip()
            _, found, state = line.partition("STATE ")
            if found:
                try:
                    self.states.append(json.loads(state))
                except ValueError:
                    self.lines.append(line)
            else:
                self.lines.append(line)

    def wait_for(self, condition, seconds):
        """The first state that satisfies it."""
        try:
            return wait_for(lambda: next((state for state in list(self.states) if condition(state)), None), seconds)
        except AssertionError:
            raise AssertionError("\n".join(self.lines[-40:])) from None

    def pull_the_plug(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def make_disk(root, disk, size="1200M"):
    call("mke2fs", "-q", "-t", "ext4", "-d", root, disk, size, stderr=subprocess.DEVNULL)


def look_into(disk, folder, inside):
    """A folder of a disk that lost its power, after its journal was replayed as the next boot would."""
    code = subprocess.run(
        ["e2fsck", "-fy", disk], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
    assert code in (0, 1), code
    folder.mkdir()
    call("debugfs", "-R", f"rdump {inside} {folder}", disk, stderr=subprocess.DEVNULL)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder / inside.rpartition("/")[2]
