"""File systems for tests, as root mounts them: small ones, that can be filled to the last block or file."""

import contextlib
import os
import shutil
import subprocess

import pytest

KINDS = ("ext4-1k", "ext4-4k", "tmpfs", "no-inodes")


def mounted(path, *options):
    path.mkdir()
    done = subprocess.run(["mount", *map(str, options), str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"root: mounting is not allowed here: {done.stderr.decode().strip()}")
    return path


@contextlib.contextmanager
def small_disk(path, size="4m"):
    mounted(path, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def small_card(path, block):
    """An ext4 file system of 8 MB with blocks of so many bytes; mkfs.ext4 itself chooses 1024 for that size."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("root: install Debian's package e2fsprogs")
    image = path.with_name(f"{path.name}.image")
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-b", str(block), str(image)], check=True, capture_output=True)
    mounted(path, "-o", "loop", image)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def of_kind(kind, path):
    """A small disk of one of KINDS."""
    return small_disk(path) if kind == "tmpfs" else small_card(path, 4096 if kind == "ext4-4k" else 1024)


def fill(path, leave=0):
    """Use all the room, but so many bytes."""
    filler = path / "filler"
    with contextlib.suppress(OSError), filler.open("wb", 0) as file:
        while True:
            file.write(bytes(1024))
    os.truncate(filler, filler.stat().st_size - leave)
    os.sync()


def use_up(kind, path):
    """Leave no room, or no file to be made, as the kind says."""
    if kind != "no-inodes":
        fill(path)
        return
    (path / "filler").mkdir()
    with contextlib.suppress(OSError):
        for number in range(10**6):
            (path / "filler" / str(number)).touch()


def make_room(path):
    filler = path / "filler"
    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()
