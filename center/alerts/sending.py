"""Messages to people, by Apprise: imported when something is sent, as it takes a second."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any
from urllib.parse import unquote

from agent.util.secret import Secret
from center.errors import RefusedError

TIMEOUT_S = 20.0
_FILES = {"keyfile", "subfile", "template", "pgpkey", "file", "path"}  # names of files on the center's own machine


@cache
def _apprise() -> tuple[Any, Any]:
    """The module, and what bounds a message. Its log, and what urllib3 says of each request, name whole addresses."""
    import apprise  # noqa: PLC0415

    logging.getLogger("apprise").propagate = False
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.INFO)
    asset = apprise.AppriseAsset(
        app_id="IoT Center",
        app_desc="IoT Center",
        app_url="",
        image_url_mask="",
        service_timeout=TIMEOUT_S,
        allow_templates=False,
        http_redirects=False,  # they make a GET of a POST: what answers that has not got the message
        storage_mode="memory",
    )
    return apprise, asset


def _service(url: Secret) -> Any:
    apprise, asset = _apprise()
    found = apprise.Apprise.instantiate(url.reveal(), asset=asset, suppress_exceptions=True)
    if found is None:
        scheme, after, _ = url.reveal().partition("://")
        meant = {"http": "json", "https": "jsons"}.get(scheme.lower()) if after else None
        if meant:
            raise RefusedError(f"for a webhook write {meant}:// in the place of {scheme}://")
        raise RefusedError("that is no address of Apprise's: see docs/alerts.md for mail, ntfy, Telegram and a webhook")
    return found


def check(url: Secret) -> str:
    """Of an address what may be shown: the scheme, and the host where every address of its kind has one there (with
    Telegram it is a token). RefusedError for what is no address, or acts on this machine and not over the network.
    """
    service = _service(url)
    scheme = url.reveal().partition(":")[0].lower()
    templates = [str(template) for template in service.templates]
    if any(template.rstrip("/_") == "{schema}:" for template in templates):
        raise RefusedError(
            f"{scheme}:// acts on the machine that the center runs on: take one that goes over the network"
        )
    if files := _FILES & {name.lower() for name in re.findall(r"[?&]([\w-]+)=", unquote(url.reveal()))}:
        raise RefusedError(f"{', '.join(sorted(files))}: an address names no file of the center's machine")
    host = service.host if all("{host}" in template for template in templates) else None
    return f"{scheme}://{host or '…'}"


def send(url: Secret, title: str, text: str, *, good: bool) -> str:
    """Why it was not sent, without the address; "" if it was. Takes TIMEOUT_S at most."""
    try:
        service = _service(url)
        apprise, asset = _apprise()
        service.socket_connect_timeout = service.socket_read_timeout = TIMEOUT_S / 2
        service.overflow_mode = apprise.OverflowMode.SPLIT
        sender = apprise.Apprise(asset=asset)
        sender.add(service)
        kind = apprise.NotifyType.SUCCESS if good else apprise.NotifyType.WARNING
        result = sender.notify(text, title, kind, body_format=apprise.NotifyFormat.TEXT)
        if result:
            return ""
        said = [entry.message for one in result.results for entry in one.logs()]
        return hidden(url, (said or ["it took too long, or was refused"])[-1])
    except RefusedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - of a service's own code, and its text may hold the address
        return f"it failed in a way that Apprise did not foresee ({type(error).__name__})"


def hidden(url: Secret, text: str) -> str:
    """The text without what the address holds, in at most 200 characters."""
    host = check(url).partition("://")[2]
    parts = re.split(r"[:/?&=@,+#\s]+", url.reveal())[1:]
    for part in sorted({*parts, *map(unquote, parts)}, key=len, reverse=True):
        if len(part) > 3 and part != host:
            text = text.replace(part, "…")
    return text[:200].rstrip(".")
