"""A folder that may not be searched: for root too, whom no mode keeps out."""

import errno
import functools
import os
from pathlib import Path


def hide(monkeypatch, folder):
    """What is in the folder may not be looked at, from now on."""

    def inside(path):
        return isinstance(path, str | os.PathLike) and folder in Path(path).parents

    def refused(real, path, *arguments, **options):
        if inside(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **options)

    def access(real, path, *arguments, **options):
        return not inside(path) and real(path, *arguments, **options)

    for name in ("stat", "lstat", "open"):
        monkeypatch.setattr(os, name, functools.partial(refused, getattr(os, name)))
    monkeypatch.setattr(os, "access", functools.partial(access, os.access))
