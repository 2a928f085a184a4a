"""An empty write stores nothing and tells what a token can do: what that comes to, decided as in delivery."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.delivery.numbered_lines import document
from agent.delivery.outcome import Delivered, decide
from agent.delivery.writer import Writer
from agent.registration.target import Target
from agent.util.http import Answer
from agent.util.proxy import BEHIND_PROXY, refusal

ADDRESS = "is this the address of an InfluxDB?"


@dataclass(frozen=True, slots=True)
class Trial:
    """`good`: points would be taken. `seen` says in a line how it is, `remedy` what to do about it."""

    good: bool
    seen: str
    remedy: str = ""


def try_out(target: Target, timeout_s: float, new_token: str) -> Trial:
    """Ask once. `new_token` is what to do about a token that is refused."""
    writer = Writer(target, timeout_s)
    try:
        answer = writer.write(b"")
    finally:
        writer.close()
    outcome = decide(answer, None, now_ns=time.time_ns())
    where = f"bucket {target.bucket!r} of organization {target.org!r} at {target.url}"
    if isinstance(outcome, Delivered):
        return Trial(True, f"the token may write to {where}")
    if (by_proxy := refusal(answer)) is not None:
        seen, _, remedy = by_proxy[1].partition(": ")
        return Trial(False, seen, remedy or BEHIND_PROXY)
    if answer.status == 401:
        return Trial(False, f"the token is not known at {target.url} (401): it was revoked or mistyped", new_token)
    if answer.status == 403:
        return Trial(
            False, f"the token may not write to {where} (403): it is inactive or for another bucket", new_token
        )
    if answer.status == 404:
        return _missing(target, answer, where)
    if answer.status is None:
        return Trial(False, f"{target.url} gives no answer: {outcome.text}", ADDRESS)
    return Trial(False, f"{target.url}: {outcome.text}", f"{ADDRESS} See its log")


def _missing(target: Target, answer: Answer, where: str) -> Trial:
    """Which of bucket, organization and path a 404 is about (InfluxDB 2.9.1 names it, recorded)."""
    said = document(answer)
    message = str(said.get("message") or "") if said.get("code") == "not found" else ""
    if "organization" in message:
        remedy = "make the organization, or mend its name in the configuration; points are kept"
        return Trial(False, f"there is no organization {target.org!r} at {target.url} (404)", remedy)
    if "bucket" in message:
        remedy = "make the bucket, or mend its name in the configuration; points are kept"
        return Trial(False, f"there is no {where} (404)", remedy)
    parts = urlsplit(target.url)
    remedy = f"correct the url: is it {parts.scheme}://{parts.netloc}" + (" without the path" if parts.path else "")
    return Trial(False, f"there is no {parts.path}/api/v2/write at {parts.scheme}://{parts.netloc} (404)", f"{remedy}?")
