"""From an answer to what is to be done. Pure: status, headers, body and the batch in, one outcome out.

The texts are those of InfluxDB 2.9.1 (tests/data/influxdb-2.9.1.json), of older ones, of InfluxDB 3 and of InfluxDB
Cloud (tests/data/influxdb-from-source.json). A text that is not known is never a reason to drop a point: its line is
parked, which counts as pending, is retried slowly and shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.buffer.batch import Batch, DeadLetter, Part
from agent.delivery.bad_lines import dropped, expired_lines, halves, named_lines, others_lines, trouble
from agent.delivery.numbered_lines import (
    EMPTY_WRITE,
    Numbered,
    document,
    is_refusal_of_lines,
    numbered_lines,
)
from agent.util.errors import short
from agent.util.http import Answer, is_html
from agent.util.proxy import refusal

SAME_BYTES = 3  # a 500 can be the sender's fault: after so many of them on the same bytes the batch is halved
EITHER = ("413", "500")  # these bytes are at fault, or the server refuses whatever it is sent
TOO_LARGE_S = 15.0
"""A server that finds everything too large (413) is asked again, with few points, after this."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """204: stored. The same series and time stamps again would only overwrite."""

    kind: str = "204"


@dataclass(frozen=True, slots=True)
class _Because:
    """`kind` is the same for the same cause: the status, or a word; `text` says it in a line."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Retry(_Because):
    """Keep; try again after a back-off. `server`: nothing would go through now, else it can be these bytes alone."""

    server: bool = True


@dataclass(frozen=True, slots=True)
class Wait(_Because):
    """Keep; the server says for how many seconds."""

    seconds: float


class Reauthorise(_Because):
    """Keep; the credential must be renewed."""


class Slow(_Because):
    """Keep; somebody has to do something about it: say so loudly and retry slowly."""


@dataclass(frozen=True, slots=True)
class Split(_Because):
    """In the batch's place: `parts` to be sent each for itself, `dead` lines kept with the server's reason; `stored` of
    its points the server has.

    `blind`: halved, or one point put under suspicion, because nothing told the bad lines from the good ones.
    """

    parts: tuple[Part, ...]
    dead: tuple[DeadLetter, ...] = ()
    blind: bool = False
    stored: int = 0


class Park(_Because):
    """Refused for a reason that is not known, or that somebody can mend: set aside as it is, retried slowly."""


class Defer(_Because):
    """Keep, out of the others' way, until the server accepts something: then it is known whose fault it is."""


Outcome = Delivered | Retry | Wait | Reauthorise | Slow | Split | Park | Defer


def is_blind(outcome: Outcome) -> bool:
    """Whether nothing told the points that are refused from the others."""
    return isinstance(outcome, Park | Defer) or (isinstance(outcome, Split) and outcome.blind)


def is_own(answer: Answer) -> bool:
    """Whether an answer proves to be the write API's own, and not of a captive portal, a proxy or a gateway: a 204, an
    error in InfluxDB's JSON, or what InfluxDB 3 says to an empty write.
    """
    if answer.status == 204:
        return not answer.body
    if answer.status not in (400, 401, 413, 422, 429, 500, 503):
        return False
    said = document(answer)
    told = isinstance(said.get("code"), str) and isinstance(said.get("message"), str)
    return told or is_refusal_of_lines(said) or _is_taken_empty(answer)


def is_taken(answer: Answer, *, empty: bool) -> bool:
    """Whether the write API says that it has taken what it was sent, or would take points, where that was `empty`."""
    return answer.status == 204 or (empty and _is_taken_empty(answer))


def _is_taken_empty(answer: Answer) -> bool:
    return answer.status == 400 and answer.body.strip() == EMPTY_WRITE


def may_be_stored(answer: Answer) -> bool:
    """Whether the server can have what it was sent although it did not say so: the answer was lost, or a gateway's."""
    may = answer.sent and answer.tunnel is None if answer.status is None else answer.status in (502, 504)
    return may or answer.lost


def decide(
    answer: Answer,
    batch: Batch | None,
    *,
    now_ns: int,
    again: int = 0,
    may_halve: bool = True,
    accepting: bool = True,
) -> Outcome:
    """The outcome of sending `batch` (None: an empty write).

    `again`: how often a 500 came for the same bytes before; `may_halve`: False once halving leads nowhere, because the
    server accepts nothing at all; `accepting`: whether it took other points since this batch was put under suspicion;
    `now_ns`: Unix time for dead letters and for a Retry-After date without a Date.
    """
    status, kind = answer.status, str(answer.status)
    if (by_proxy := refusal(answer)) is not None:
        return _refused_by_proxy(*by_proxy)
    if status is None:
        return Retry("timeout" if answer.timed_out else "no answer", short(answer.error) or "no answer")
    if is_taken(answer, empty=batch is None):
        return Delivered()
    message = answer.message()
    text = f"{status} {short(message)}".strip()
    html = is_html(answer)
    lines = batch.lines() if batch is not None and status in (201, 400, 403, 422) else []
    if (numbered := numbered_lines(lines, answer)) is not None:
        return _by_number(lines, numbered, kind, now_ns)
    if status < 300:
        what = answer.headers.get("content-type", "no content type")
        return Retry(kind, f"{status} ({short(what)}) instead of 204: a captive portal or proxy answers for the server")
    if status < 400:
        there = short(answer.headers.get("location", "nowhere"))
        return Slow(kind, f"{status} redirect to {there}: not followed, the token goes nowhere else; correct the url")
    if status == 403 and (others := others_lines(lines, message)):
        return _held_back(kind, text, lines, others)
    if status in (401, 403):
        return Reauthorise(kind, text)
    if status in (429, 503):
        seconds = answer.retry_after_s(now_ns)
        return Retry(kind, text) if seconds is None else Wait(kind, text, seconds)
    if status > 500 or status == 408 or (status == 500 and batch is None):
        return Retry(kind, text)
    if kind in EITHER and batch is not None:
        # Whose fault it is shows when parts of it, or other points, are accepted: till then no point is parked.
        if batch.parked and batch.count == 1:
            return Park(kind, text)
        tries = 1 if batch.suspect and accepting else SAME_BYTES
        if status == 500 and (again + 1 < tries or not may_halve):
            return Retry(kind, text, server=False)
        if not may_halve:
            return Wait(kind, text, answer.retry_after_s(now_ns) or TOO_LARGE_S)
        if batch.count > 1 or not batch.suspect:
            return _halved(kind, text, batch.lines())
        return Park(kind, text) if accepting else Defer(kind, text)
    if batch is None or html or status not in (400, 422):
        return Slow(kind, text)
    again_sent = batch.suspect or batch.parked
    known = _named(lines, message, now_ns) if status == 400 else _partial(lines, message, now_ns, again=again_sent)
    if known is not None:
        return known
    if batch.count == 1 or dropped(message) == batch.count or not may_halve:
        return Park(kind, text)
    return _halved(kind, text, lines)


def _refused_by_proxy(status: int, text: str) -> Slow | Retry:
    """Nobody has seen the request: the proxy does not know us or forbids it, or it reaches no server."""
    return Slow(f"{status} proxy", text) if status in (403, 407) else Retry("proxy", text)


def _halved(kind: str, text: str, lines: Sequence[bytes]) -> Split:
    """Suspects are sent each for itself; what was only too large can be joined again."""
    state: Literal["pending", "suspect"] = "pending" if kind == "413" and len(lines) > 1 else "suspect"
    parts = halves(lines) if len(lines) > 1 else (tuple(lines),)
    return Split(kind, text, tuple(Part(part, state) for part in parts), blind=True)


def _by_number(lines: Sequence[bytes], named: Numbered, kind: str, now_ns: int) -> Split | Park:
    """InfluxDB 3 and Cloud. A 422 is a limit of the server's: somebody can raise it, so what it refuses is parked."""
    text = f"{kind} {short(next(iter(named.lines.values())))}"
    rest = tuple(line for n, line in enumerate(lines) if n not in named.lines)
    parts = () if named.others_stored or not rest else (Part(rest, "pending"),)
    stored = len(rest) if named.others_stored else 0
    if kind == "422":
        if not rest:
            return Park(kind, text)
        refused = tuple(lines[n] for n in sorted(named.lines))
        return Split(kind, text, (*parts, Part(refused, "parked")), stored=stored)
    dead = tuple(DeadLetter(lines[n], _code(words), short(words), now_ns) for n, words in sorted(named.lines.items()))
    return Split(kind, text, parts, dead, stored=stored)


def _held_back(kind: str, text: str, lines: Sequence[bytes], refused: set[int]) -> Split | Park:
    """What somebody can mend at the server is kept out of the others' way; nothing was stored."""
    if len(refused) == len(lines):
        return Park(kind, text)
    rest = tuple(line for n, line in enumerate(lines) if n not in refused)
    return Split(kind, text, (Part(rest, "pending"), Part(tuple(lines[n] for n in sorted(refused)), "parked")))


def _code(words: str) -> str:
    return "type_conflict" if "column type" in words else "parse"


def _named(lines: Sequence[bytes], message: str, now_ns: int) -> Split | None:
    """400: nothing was stored; the named lines are taken out and the rest is sent again."""
    named = named_lines(lines, message)
    if not named:
        return None
    dead = tuple(DeadLetter(lines[n], "parse", short(reason), now_ns) for n, reason in sorted(named.items()))
    rest = tuple(line for n, line in enumerate(lines) if n not in named)
    return Split("400", f"400 {short(message)}", (Part(rest, "pending"),) if rest else (), dead)


def _partial(lines: Sequence[bytes], message: str, now_ns: int, *, again: bool) -> Split | Park | None:
    """422 partial write: all but the refused were stored, so whatever is sent again only overwrites itself.

    `dropped` is a lower bound: equal to the size, all were refused; less says nothing, unless it is the retention.
    `again`: these points were sent with others before.
    """
    found = trouble(lines, message)
    if found is None:
        return None
    text = f"422 {short(message)}"
    reason = found.reason
    if reason == "retention":
        # Alone an expired point is refused that was stored with a good one of its shard: nobody knows whether it was.
        reason = "expired" if again else reason
        expired = expired_lines(lines, message)
        if expired is not None:
            dead = tuple(DeadLetter(lines[n], reason, short(message), now_ns) for n in sorted(expired))
            return Split("422", text, (), dead, stored=len(lines) - len(dead))
    if dropped(message) == len(lines) or (len(lines) == 1 and found.lines):
        if found.theirs:
            return Park("422", text)
        return Split("422", text, (), tuple(DeadLetter(line, reason, short(message), now_ns) for line in lines))
    meant = set(found.lines)
    rest = tuple(line for n, line in enumerate(lines) if n not in meant)
    apart = tuple(line for n, line in enumerate(lines) if n in meant)
    if rest and apart:
        return Split("422", text, (Part(rest, "suspect"), Part(apart, "suspect")))
    return _halved("422", text, lines) if len(lines) > 1 else None
