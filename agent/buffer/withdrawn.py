"""Points that were dated by a time that turned out to be wrong: which rows have some, and what was delivered so."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from agent.buffer.batch import UndatedBoot
from agent.buffer.index import Entry, Index, RowIndex
from agent.buffer.rows import Kind
from agent.clock.timeline import Stretch, Wrong

_MS = 1_000_000
_NEAR_NS = 60_000_000_000
_SPANS = 1000


def touches(stretches: Iterable[Stretch], first_ms: int, last_ms: int) -> bool:
    """Whether something of these stretches can be among stamps of this range (Unix ms)."""
    return any(s.first_ns <= last_ms * _MS + _MS and first_ms * _MS <= s.last_ns for s in stretches)


@dataclass(slots=True)
class Withdrawn:
    """A part of the queue, guarded by its lock. `stretches` are by boot; `rows` have points of these boots that wait
    for another time: nobody delivers them until then. `number` counts the withdrawals, `saved` those that are on disk.
    `given_up`: boots whose points in these rows are to go, and the reason.
    """

    stretches: dict[str, tuple[Stretch, ...]] = field(default_factory=dict)
    rows: dict[int, frozenset[str]] = field(default_factory=dict)
    number: int = 0
    saved: int = 0
    given_up: dict[str, str] = field(default_factory=dict)

    def flag(self, entry: Entry, boots: Iterable[str]) -> bool:
        """A row may have such points: it waits, if so."""
        found = {boot for boot in boots if touches(self.stretches[boot], entry.first_ms, entry.last_ms)}
        if found:
            self.rows[entry.key] = self.rows.get(entry.key, frozenset()) | found
        return bool(found)

    def flag_lines(self, key: int, lines: Iterable[bytes]) -> None:
        """The same of a row whose lines are known."""
        stamps = [int(line.rpartition(b" ")[2]) for line in lines]
        found = {b for b, wrong in self.stretches.items() if any(s.holds(stamp) for s in wrong for stamp in stamps)}
        if found:
            self.rows[key] = frozenset(found)

    def rewritten(self, keys: Sequence[int], dated: tuple[frozenset[str], int]) -> None:
        """Rows became one, and got the right time of these boots, unless there was another withdrawal meanwhile."""
        boots: frozenset[str] = frozenset().union(*(self.rows.pop(key, frozenset()) for key in keys))
        if dated[1] == self.number:
            boots -= dated[0]
        if boots:
            self.rows[keys[0]] = boots

    def dateable(self, dating: Container[str]) -> bool:
        """Whether the right time is known of some of the rows, or they are given up."""
        return any(boot in dating or boot in self.given_up for boots in self.rows.values() for boot in boots)

    def give_up(self, boot: str, reason: str) -> bool:
        """The points of a boot in the rows of now need no other time. True if there are some, and that is news."""
        news = boot not in self.given_up and any(boot in boots for boots in self.rows.values())
        if news:
            self.given_up[boot] = reason
        return news

    def done(self) -> None:
        """Forget the stretches of boots that have no row left."""
        left = frozenset().union(*self.rows.values())
        self.stretches = {boot: stretches for boot, stretches in self.stretches.items() if boot in left}
        self.given_up = {boot: reason for boot, reason in self.given_up.items() if boot in left}

    def boots(self, index: Index) -> list[UndatedBoot]:
        """The boots that wait for a time, with their points on the boot clock, as far as rows tell."""
        found = []
        for boot, stretches in self.stretches.items():
            rows = [entry for key, boots in self.rows.items() if boot in boots and (entry := index.get(key))]
            if rows and boot not in self.given_up:
                first = min(max(e.first_ms * _MS, s.first_ns) - s.offset_ns for e in rows for s in stretches)
                last = max(min(e.last_ms * _MS, s.last_ns) - s.offset_ns for e in rows for s in stretches)
                points = sum(entry.points for entry in rows)
                found.append(UndatedBoot(boot, points, max(first, 0), max(last, 0), min(entry.key for entry in rows)))
        return found


def undated(rows: RowIndex, wrong: Withdrawn, dating: Container[str]) -> list[UndatedBoot]:
    """The boots with points on disk that wait for a time which nobody has told, the oldest first."""
    found: dict[str, UndatedBoot] = {}
    for boot in (*rows.boots(), *wrong.boots(rows.by_kind[Kind.PENDING])):
        name, count, first_ns, last_ns, key = boot.boot_id, boot.count, boot.first_ns, boot.last_ns, boot.key
        if (same := found.get(name)) is not None:  # some never had a time, of others it was wrong
            count, key = count + same.count, min(key, same.key)
            first_ns, last_ns = min(first_ns, same.first_ns), max(last_ns, same.last_ns)
        found[name] = UndatedBoot(name, count, first_ns, last_ns, key)
    return sorted((boot for boot in found.values() if boot.boot_id not in dating), key=lambda boot: boot.key)


class Spans:
    """Which stretches of time were delivered since the agent started, and how many points of each."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, int]] = []

    def add(self, first_ns: int, last_ns: int, count: int) -> None:
        for at, (first, last, points) in enumerate(self._spans):
            if first - _NEAR_NS <= last_ns and first_ns <= last + _NEAR_NS:
                self._spans[at] = min(first, first_ns), max(last, last_ns), points + count
                return
        self._spans = [*self._spans[1 - _SPANS :], (first_ns, last_ns, count)]

    def within(self, stretches: Sequence[Stretch]) -> Wrong:
        """What of these stretches was delivered. It is told once."""
        hit = [s for s in self._spans if any(w.first_ns <= s[1] and s[0] <= w.last_ns for w in stretches)]
        self._spans = [s for s in self._spans if s not in hit]
        if not hit:
            return Wrong()
        return Wrong(0, sum(points for _, _, points in hit), min(s[0] for s in hit), max(s[1] for s in hit))
