"""How long to wait before the next try. Pure: the clock, the randomness and the counts are arguments."""

from __future__ import annotations

from random import Random

BASE_S = 1.0
CAP_S = 300.0


def growing(attempt: int, base: float, cap: float, factor: float = 2.0) -> float:
    """`base` · `factor`^`attempt` seconds, at most `cap`, however many attempts there were: a float ends at 2^1024."""
    return min(cap, base * factor ** min(max(attempt, 0), 60))


def full_jitter(attempt: int, base: float, cap: float, rng: Random) -> float:
    """Seconds before the next try after `attempt` failures (1, 2, …): evenly between 0 and min(cap, base · 2^attempt).

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog: many devices come back spread out.
    """
    return rng.uniform(0, growing(attempt, base, cap))
