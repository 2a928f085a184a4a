"""Any order of putting, taking, answering, committing, failing, killing and reopening keeps the promises."""

import contextlib
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from agent.buffer import rows
from agent.buffer.batch import DeadLetter, Part
from agent.buffer.disk_error import DiskError
from tests.amounts import amount
from tests.buffers import BOOT, OTHER_BOOT, UNIX_NS, HandClock, cut_power, line, open_at, store_of


def value(text: bytes) -> int:
    """The number a point was measured with: who it is."""
    return int(float(text.split(b"Temperature=")[1].split()[0]))


class BufferMachine(RuleBasedStateMachine):
    """`alive` are points that the buffer must still have; `lost` those that a kill may have taken."""

    batches = Bundle("batches")

    @initialize(dated=st.booleans())
    def begin(self, dated):
        memory = Path("/dev/shm")  # no real disk: this is about what is written, not about when it is synced
        self.top = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.runs = 0
        self.clock = HandClock(offset_ns=UNIX_NS if dated else None)
        self.next = 0
        self.alive, self.safe, self.gone, self.dead, self.dropped = set(), set(), set(), set(), set()
        self.delivered = []
        self.once = set()
        self.out = []
        self.buffer = open_at(self.top / "0", self.clock)

    def teardown(self):
        if hasattr(self, "buffer"):
            self.finish()
            self.buffer.close()
            shutil.rmtree(self.top)

    # Points

    @rule(count=st.integers(1, 40), device=st.sampled_from(["a", "b"]), own=st.booleans())
    def put(self, count, device, own):
        for _ in range(count):
            self.buffer.put([line(self.clock, self.next, device, "agent" if own else "environment")])
            self.alive.add(self.next)
            self.next += 1
            self.clock.pass_s(0.3)

    @precondition(lambda self: self.alive)
    @rule(limit=st.integers(1, 30), first=st.integers(0, 2), target=batches)
    def take(self, limit, first):
        takes = [
            lambda: self.buffer.take_live(limit),
            lambda: self.buffer.take_backlog(limit),
            self.buffer.take_parked,
        ]
        batch = takes[first]() or takes[first - 1]() or takes[first - 2]()
        if batch is not None:
            values = [value(text) for text in batch.lines()]
            assert len(values) == batch.count
            assert batch.health == sum(text.startswith(b"agent,") for text in batch.lines())
            assert set(values) <= self.alive, "only what waits is given out"
            assert not set(values) & {v for b in self.out for v in map(value, b.lines())}, "and only once at a time"
            self.out.append(batch)
        return multiple() if batch is None else (batch, self.runs)

    def _mine(self, ticket):
        batch, run = ticket
        if run != self.runs:
            return None
        self.out.remove(batch)
        return batch

    @rule(ticket=consumes(batches))
    def answer_204(self, ticket):
        batch = self._mine(ticket)
        if batch is not None:
            self.buffer.delivered(batch)
            values = {value(text) for text in batch.lines()}
            assert not values & self.once, "a point is delivered once by a process"
            self.once |= values
            self.alive -= values
            self.gone |= values

    @rule(ticket=consumes(batches))
    def answer_503(self, ticket):
        batch = self._mine(ticket)
        if batch is not None:
            self.buffer.keep(batch)

    @rule(ticket=consumes(batches), data=st.data())
    def answer_400(self, ticket, data):
        batch = self._mine(ticket)
        if batch is None:
            return
        fates = {fate: [] for fate in ("pending", "suspect", "parked", "dead", "delivered")}
        for text in batch.lines():
            fates[data.draw(st.sampled_from(sorted(fates)))].append(text)
        parts = [Part(tuple(fates[state]), state) for state in ("pending", "suspect", "parked")]
        letters = [DeadLetter(text, "parse", "no", 1) for text in fates["dead"]]
        self.buffer.replace(batch, parts, letters, len(fates["delivered"]))
        settled = set(map(value, fates["dead"] + fates["delivered"]))
        self.alive -= settled
        self.gone |= settled
        self.once |= set(map(value, fates["delivered"]))

    # Time and disk

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds):
        self.clock.pass_s(seconds)

    def _saved(self):
        self.safe = set(self.alive)
        self.gone_for_good = set(self.gone)

    @rule()
    def commit(self):
        if self.buffer.commit_all():
            self._saved()

    @rule()
    def committer_steps(self):
        if self.buffer.commit_due(self.clock.boot_ns()):
            self.buffer.commit()

    @rule(after=st.booleans(), trouble=st.sampled_from(["io", "full", "readonly"]))
    def disk_fails(self, after, trouble):
        """A transaction fails before, or, as far as anyone can tell, after it was committed."""
        disk = self.buffer._disk
        if disk._store is None:
            return
        store, real = disk.store, disk.store.transaction
        store.transaction = lambda: _failing(real, trouble, after=after)
        self.buffer.commit_all()
        store.transaction = real

    @precondition(lambda self: self.clock.offset_ns is None)
    @rule()
    def clock_becomes_good(self):
        self.clock.offset_ns = UNIX_NS
        self.buffer.date_boot(self.clock.boot_id, UNIX_NS, estimated=False)

    # Starting and stopping

    @rule(reboot=st.booleans())
    def close_and_reopen(self, reboot):
        self.buffer.close()
        self._saved()
        self._reopen(self.buffer.folder, reboot=reboot)

    @rule(reboot=st.booleans())
    def kill_and_reopen(self, reboot):
        """The files as they are now go on; what was only in memory is lost."""
        old = self.buffer.folder
        new = self.top / str(self.runs + 1)
        shutil.copytree(old, new)
        cut_power(self.buffer)
        self.buffer.close()
        shutil.rmtree(old)
        self._reopen(new, reboot=reboot, killed=True)

    def _reopen(self, folder, *, reboot, killed=False):
        self.runs += 1
        self.out.clear()
        self.once = set()
        self.clock.pass_s(1)
        offset, boot = self.clock.offset_ns, self.clock.boot_id
        if reboot:
            offset, boot = None, OTHER_BOOT if boot == BOOT else BOOT
        self.clock = HandClock(self.clock.now_ns / 1e9, offset, boot)
        self.buffer = open_at(folder, self.clock)
        if killed:
            self._resync()

    def _resync(self):
        """After a kill: what is there must be what was safe and not settled since, and nothing that never was."""
        present = set(self._present())
        assert self.safe - self.gone <= present, "a committed point is never lost"
        assert present <= self.alive | self.gone
        self.alive = set(present)
        self._saved()

    def _present(self):
        """The points that wait on disk, whatever their state."""
        store, found = store_of(self.buffer), []
        for row in store.scan(before=1 << 62):
            found += [value(text) for text in rows.unpack(*store.read(row.key), row.key)[1]]
        assert len(found) == len(set(found)), "no point is there twice"
        return found

    @invariant()
    def promise_8(self):
        if hasattr(self, "buffer"):
            status = self.buffer.snapshot()
            assert status.unaccounted == 0
            assert status.unaccounted_health == 0
            assert status.pending == len(self.alive)

    def finish(self):
        """In the end every point that waits can be delivered, and the counters know."""
        for batch in self.out:
            self.buffer.keep(batch)
        self.clock.pass_s(40)
        for boot in (BOOT, OTHER_BOOT):
            self.buffer.date_boot(boot, UNIX_NS, estimated=False)
        assert self.buffer.commit_all()
        left = set()
        while (batch := self.buffer.take_backlog(50) or self.buffer.take_parked()) is not None:
            left |= set(map(value, batch.lines()))
            self.buffer.delivered(batch)
        assert left == self.alive
        assert self.buffer.snapshot().pending == 0


@contextmanager
def _failing(real, trouble, *, after):
    with contextlib.suppress(DiskError), real():
        yield
        if not after:
            raise OSError("rolled back")
    raise DiskError(trouble, "injected")


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(
    max_examples=amount(12, 60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes: add Phase.shrink by hand
)
