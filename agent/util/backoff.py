"""How long to wait before the next try. Pure: the clock, the randomness and the counts are arguments."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from random import Random

BASE_S = 1.0
CAP_S = 300.0
RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_MAX_S = 900.0


def full_jitter(attempt: int, base: float, cap: float, rng: Random) -> float:
    """Seconds before the next try after `attempt` failures (1, 2, …): evenly between 0 and min(cap, base · 2^attempt).

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog: many devices come back spread out.
    """
    return rng.uniform(0, min(cap, base * 2.0 ** min(max(attempt, 0), 60)))


def http_date_ns(text: str) -> int | None:
    """Unix nanoseconds of an HTTP date (RFC 9110 section 5.6.7, all three forms), or None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # asctime's form says nothing: HTTP dates are always UTC
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def retry_after_s(text: str | None, now_ns: int, most_s: float = RETRY_AFTER_MAX_S) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3: seconds or a date), 1 to `most_s`.

    `now_ns` is Unix time: the same answer's Date header where there is one, since the device's clock may be wrong.
    None when there is no header or it is neither of the two.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        date = http_date_ns(text) if text else None
        if date is None:
            return None
        seconds = (date - now_ns) / 1e9
    return min(max(seconds, RETRY_AFTER_MIN_S), most_s)
