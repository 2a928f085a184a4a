"""The counters behind promise 8: measured = delivered + pending + rejected + dropped.

What is saved is one row, changed in the same transaction as the rows it speaks of. The agent keeps only what changed
since its last save, and adds that to the row as it finds it inside the transaction, because `buffer import` and
`rejected replay` change it too. Points that are only in memory are in the live counters, not in the saved ones: a
power cut takes both together.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from agent.buffer.rows import Ranges
from agent.clock.timeline import Stretch

SAVE_EVERY_S = 900.0
"""Seconds between saves, at most: so much measuring can be in none of the counters after an unclean stop."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Numbers of points. `dropped` is by reason: thinned, max_size, max_age, memory, damaged, undated …"""

    measured: int = 0
    delivered: int = 0
    rejected: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        dropped = dict(self.dropped)
        for reason, number in other.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
        return Tally(
            self.measured + other.measured,
            self.delivered + other.delivered,
            self.rejected + other.rejected,
            {reason: number for reason, number in dropped.items() if number},
        )

    def __neg__(self) -> Tally:
        return Tally(-self.measured, -self.delivered, -self.rejected, {r: -n for r, n in self.dropped.items()})

    def __sub__(self, other: Tally) -> Tally:
        return self + -other

    def unaccounted(self, pending: int) -> int:
        """0, unless there is a mistake. `pending` are the points that wait."""
        return self.measured - self.delivered - pending - self.rejected - sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class Counters:
    """The sensors' points, and apart from them the agent's own health points. `uncounted_s` is how many seconds of
    measuring are in none of the numbers, because the agent was stopped uncleanly before it could save them.
    """

    points: Tally = field(default_factory=Tally)
    health: Tally = field(default_factory=Tally)
    uncounted_s: float = 0.0

    def __add__(self, other: Counters) -> Counters:
        return Counters(self.points + other.points, self.health + other.health, self.uncounted_s + other.uncounted_s)

    def __neg__(self) -> Counters:
        return Counters(-self.points, -self.health, -self.uncounted_s)

    def __sub__(self, other: Counters) -> Counters:
        return self + -other


def measured(count: int, health: int = 0) -> Counters:
    """`count` points more, `health` of them the agent's own."""
    return Counters(Tally(measured=count - health), Tally(measured=health))


def delivered(count: int, health: int = 0) -> Counters:
    return Counters(Tally(delivered=count - health), Tally(delivered=health))


def rejected(count: int, health: int = 0) -> Counters:
    return Counters(Tally(rejected=count - health), Tally(rejected=health))


def dropped(reason: str, count: int, health: int = 0) -> Counters:
    return Counters(Tally(dropped={reason: count - health}), Tally(dropped={reason: health}))


def regained(counters: Counters, points: int, health: int) -> Counters:
    """The change when points that were given up as damaged are there after all."""
    damaged = [tally.dropped.get("damaged", 0) for tally in (counters.points, counters.health)]
    return _again(points, health, damaged, partial(dropped, "damaged"))


def replayed(counters: Counters, points: int, health: int) -> Counters:
    """The change when points that were refused wait again."""
    return _again(points, health, [counters.points.rejected, counters.health.rejected], rejected)


def _again(points: int, health: int, gone: Sequence[int], as_gone: Callable[[int, int], Counters]) -> Counters:
    """The change when points wait again, of which so many at most are counted as gone; those beyond never were."""
    back, back_health = min(points - health, gone[0]), min(health, gone[1])
    total = back + back_health
    return as_gone(-total, -back_health) + measured(points - total, health - back_health)


def balance(counters: Counters, pending: int, health: int) -> Counters:
    """The change that makes the equation hold after damage: what is missing was dropped, what is found beyond the
    counters is regained. `health` of the `pending` points are the agent's own.
    """
    points, own = counters.points.unaccounted(pending - health), counters.health.unaccounted(health)
    change = dropped("damaged", max(points, 0) + max(own, 0), max(own, 0))
    return change + regained(counters, max(-points, 0) + max(-own, 0), max(-own, 0))


@dataclass(frozen=True, slots=True)
class Saved:
    """The ledger row. `generation` rises with each transaction of whatever process; `last_key` and `last_dead` are
    the greatest keys given out; `last_ns` is the latest stamp given to a live point (Unix); `dating` are the boots
    whose undated rows are being dated: clock offset (ns) and 1 if estimated; `withdrawn` those whose rows had a wrong
    time: how they were dated; `fixed` the rows whose stamps stay (pins.py), as ranges of keys; `recovering`
    are the damaged sets that are being read, and the key up to which that is done; boot_id, boot_ns and wall_s say when
    it was saved.
    """

    counters: Counters = field(default_factory=Counters)
    generation: int = 0
    last_key: int = 0
    last_dead: int = 0
    clean: bool = True
    boot_id: str = ""
    boot_ns: int = 0
    wall_s: float = 0.0
    last_ns: int = 0
    dating: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    withdrawn: Mapping[str, tuple[Stretch, ...]] = field(default_factory=dict)
    fixed: Ranges = ()
    recovering: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """A CRC of the text, a space, and the text."""
        text = json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode()
        return b"%08x %s" % (zlib.crc32(text), text)

    @staticmethod
    def decode(data: object) -> Saved:
        """Raises ValueError for anything but what encode() made, here or (without a CRC) in 0.1.0."""
        if not isinstance(data, bytes):
            raise ValueError("the ledger is not there")  # noqa: TRY004 - one error for whatever is wrong with it
        crc, _, text = (b"", b"", data) if data.startswith(b"{") else data.partition(b" ")
        if crc and crc != b"%08x" % zlib.crc32(text):
            raise ValueError("the ledger is damaged: wrong checksum")
        try:
            row = json.loads(text)
            counters, wrong = row.pop("counters"), row.pop("withdrawn", {})
            if "last_ms" in row:  # 0.1.0 had milliseconds
                row["last_ns"] = row.pop("last_ms") * 1_000_000
                row["dating"] = {boot: (offset * 1_000_000, guess) for boot, (offset, guess) in row["dating"].items()}
            saved = Saved(
                Counters(_tally(counters["points"]), _tally(counters["health"]), float(counters["uncounted_s"])), **row
            )
            numbers = (saved.generation, saved.last_key, saved.last_dead, saved.boot_ns, saved.last_ns)
            if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or type(saved.clean) is not bool:
                raise ValueError("impossible numbers")
            dating = {str(boot): (int(offset), int(guess)) for boot, (offset, guess) in saved.dating.items()}
            withdrawn = {str(boot): tuple(Stretch(**one) for one in stretches) for boot, stretches in wrong.items()}
            recovering = {str(name): int(key) for name, key in saved.recovering.items()}
            return replace(
                saved,
                dating=dating,
                withdrawn=withdrawn,
                fixed=tuple((int(first), int(last)) for first, last in saved.fixed),
                recovering=recovering,
                wall_s=float(saved.wall_s),
                boot_id=str(saved.boot_id),
            )
        except (KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"the ledger is not readable: {error}") from error


def _tally(row: Any) -> Tally:
    numbers = [row["measured"], row["delivered"], row["rejected"], *row["dropped"].values()]
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("impossible counters")
    return Tally(**row)


def uncounted_s(saved: Saved, boot_id: str, boot_ns: int, wall_s: float) -> float:
    """Seconds of measuring that an unclean stop left uncounted: from the last save to now, at most 15 min.

    In the same boot the boot clock tells; else the wall clock, and where that went backwards the whole 15 min count.
    """
    if saved.clean or not saved.generation:
        return 0.0
    passed = (boot_ns - saved.boot_ns) / 1e9 if saved.boot_id == boot_id else wall_s - saved.wall_s
    return min(passed, SAVE_EVERY_S) if passed >= 0 else SAVE_EVERY_S


class Ledger:
    """The live counters: what was last saved, and what changed since. Guarded by the buffer's lock."""

    def __init__(self) -> None:
        self.base = Saved()
        self.delta = Counters()

    def count(self, change: Counters) -> None:
        self.delta += change

    @property
    def counters(self) -> Counters:
        return self.base.counters + self.delta

    def savable(self, unsaved: Counters) -> Counters:
        """The change to save now. `unsaved` are the measured points that stay in memory only."""
        return self.delta - unsaved

    def saved(self, row: Saved, change: Counters) -> None:
        """`row` is on disk, with `change` in it."""
        self.base = row
        self.delta -= change
