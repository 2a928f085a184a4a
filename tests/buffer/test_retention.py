"""Promise 6: memory and disk stay within their limits at any outage length, and every point that goes is counted."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.buffer import retention
from agent.buffer.batch import DeadLetter, Part
from agent.buffer.index import Entry, Index
from agent.buffer.offline import OfflineBuffer
from agent.buffer.retention import FreeRow, next_to_thin, thinned
from agent.buffer.rows import Kind, lines_of, pack
from agent.buffer.tail import Block
from agent.points.schema import Line
from tests.buffers import OTHER_BOOT, SECOND, UNIX_NS, HandClock, accounted, drain, line, measure, open_at


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "buffer"


def outage(buffer, clock, rounds, count=50):
    for _ in range(rounds):
        measure(buffer, clock, count)
        assert buffer.commit_all()


def stamps(buffer):
    return sorted((int(text.split()[-1]) - UNIX_NS) // SECOND - 1000 for text in drain(buffer))


def small(monkeypatch, limit=40_000):
    """A limit that a test reaches: pages for `limit` bytes."""
    monkeypatch.setattr(retention, "budget", lambda _: limit)


def test_promise_6_when_full_the_oldest_points_become_coarser_and_the_whole_outage_stays_covered(
    folder, clock, monkeypatch
):
    small(monkeypatch)
    buffer = open_at(folder, clock, when_full="thin")
    outage(buffer, clock, 200)
    status = buffer.snapshot()
    assert status.disk_bytes <= 45_000
    assert status.counters.points.dropped["thinned"] > 1000
    assert set(status.counters.points.dropped) == {"thinned"}
    accounted(buffer)
    left = stamps(buffer)
    gaps = [later - earlier for earlier, later in pairwise(left)]
    assert left[0] == 0
    assert left[-1] == 200 * 50 - 1
    assert gaps[-1] == 1, "the newest are all there"
    assert max(gaps[len(gaps) // 2 :]) <= 2 * max(gaps[: len(gaps) // 2])
    assert max(gaps) <= 64
    assert buffer.commit_all()
    buffer.close()


def test_promise_6_or_the_oldest_go(folder, clock, monkeypatch):
    small(monkeypatch)
    buffer = open_at(folder, clock, when_full="drop_oldest")
    outage(buffer, clock, 200)
    status = buffer.snapshot()
    assert status.disk_bytes <= 45_000
    accounted(buffer)
    left = stamps(buffer)
    assert left == list(range(status.counters.points.dropped["max_size"], 10_000))
    buffer.close()


def test_promise_6_or_no_new_ones_are_taken(folder, clock, monkeypatch):
    small(monkeypatch)
    buffer = open_at(folder, clock, when_full="drop_newest")
    outage(buffer, clock, 200)
    status = buffer.snapshot()
    assert status.disk_bytes <= 45_000
    accounted(buffer)
    left = stamps(buffer)
    assert left[: len(left) - 1] == list(range(len(left) - 1))
    assert status.counters.points.dropped["max_size"] == 10_000 - len(left)
    buffer.close()


def test_what_is_in_flight_is_neither_thinned_nor_dropped_nor_merged(folder, clock, monkeypatch):
    small(monkeypatch)
    buffer = open_at(folder, clock, when_full="drop_oldest")
    outage(buffer, clock, 3)
    batch = buffer.take_backlog(5000)
    lines = batch.lines()
    outage(buffer, clock, 200)
    buffer.keep(batch)
    assert buffer.take_backlog(batch.count).lines() == lines
    accounted(buffer)
    buffer.close()


def test_undated_points_are_thinned_too_and_stay_undated(folder, monkeypatch):
    small(monkeypatch)
    clock = HandClock(offset_ns=None)
    buffer = open_at(folder, clock, when_full="thin")
    outage(buffer, clock, 100)
    status = buffer.snapshot()
    assert status.disk_bytes <= 45_000
    assert status.undated == status.pending == 5000 - status.counters.points.dropped["thinned"]
    accounted(buffer)
    buffer.close()


def test_points_older_than_max_age_go(folder, clock):
    buffer = open_at(folder, clock, max_age=3600)
    outage(buffer, clock, 4, count=200)
    clock.pass_s(3600 - 800 + 300)
    buffer.commit_all()
    buffer.commit_all()
    status = buffer.snapshot()
    assert status.counters.points.dropped == {"max_age": 200}
    assert status.pending == 600
    accounted(buffer)
    buffer.close()


def test_no_point_is_too_old_while_nobody_knows_the_time(folder, clock):
    buffer = open_at(folder, clock, max_age=3600)
    outage(buffer, clock, 4, count=200)
    clock.offset_ns = None
    clock.pass_s(10**6)
    buffer.commit_all()
    assert buffer.snapshot().counters.points.dropped == {}
    buffer.close()


@pytest.mark.parametrize("when_full", ["thin", "drop_oldest", "drop_newest"])
def test_promise_2_no_point_that_waits_makes_room_for_dead_letters(folder, clock, when_full):
    buffer = open_at(folder, clock, max_size=1_000_000, when_full=when_full)
    random = Random(1)
    for _ in range(4):
        for _ in range(1000):
            clock.pass_s(1)
            head = b'environment,clientId=pi-1 note="%s"' % random.randbytes(200).hex().encode()
            buffer.put([Line(head, clock.boot_ns())])
        batch = buffer.take_live(5000)
        buffer.replace(batch, [], [DeadLetter(text, "parse", "no", UNIX_NS) for text in batch.lines()])
        assert buffer.commit_all()
    assert buffer.snapshot().disk_bytes > retention.budget(1_000_000)
    outage(buffer, clock, 10)
    status = buffer.snapshot()
    assert (status.pending, status.dead_letters, dict(status.counters.points.dropped)) == (500, 4000, {})
    accounted(buffer)


def test_dead_letters_are_bounded_and_stay_counted(folder, clock):
    buffer = open_at(folder, clock, max_rejected=2000)
    for _ in range(20):
        measure(buffer, clock, 10)
        batch = buffer.take_live(100)
        dead = [DeadLetter(text, "parse", "m" * 2000, UNIX_NS) for text in batch.lines()]
        buffer.replace(batch, [], dead)
        buffer.commit_all()
    buffer.commit_all()
    status = buffer.snapshot()
    assert status.counters.points.rejected == 200
    assert 0 < status.dead_letters < 200
    accounted(buffer)
    buffer.close()


def test_promise_6_the_default_holds_60_days_at_1_hz():
    """5.2 million points, at what merged rows of three-field points take."""
    lines = [
        b"environment,TemperatureSensor=bme280,HumiditySensor=bme280,PressureSensor=bme280,clientId=pi,device=pi "
        b"Temperature=2%d.%d,Humidity=5%d.%d,Pressure=10%02d.%d %d"
        % (n % 7, n % 97, n % 9, n % 89, n % 31, n % 83, UNIX_NS + n * SECOND)
        for n in range(5000)
    ]
    row = pack(lines, Kind.PENDING)
    assert lines_of(row.value) == lines
    assert len(row.value) / 5000 * 1.1 * 60 * 86_400 < retention.budget(256_000_000)


def test_every_second_point_of_each_series_stays():
    lines = [b"m,d=%d a=1 %d" % (n % 2, n) for n in range(8)]
    assert thinned(lines) == [lines[0], lines[1], lines[4], lines[5]]
    assert thinned([b"m a=1 1"]) == [b"m a=1 1"]


def test_the_older_half_is_thinned_evenly_from_its_oldest():
    rows = [FreeRow(Entry(n, 10, 0, 100, thin), Kind.PENDING, "") for n, thin in enumerate([1, 1, 0, 0, 0, 0, 0, 0])]
    assert [row.entry.key for row in next_to_thin(rows, 20)] == [2, 3]
    assert next_to_thin([], 20) == []


def free_row(key, points=10, thin=0, kind=Kind.PENDING, boot=""):
    return FreeRow(Entry(key, points, 0, 100, thin), kind, boot)


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        ([free_row(1, 20), free_row(2, 20)], [1]),  # one at least, however many points it has
        ([free_row(1), free_row(2), free_row(3, 1), *map(free_row, range(4, 9))], [1, 2]),  # up to 20 points
        ([free_row(1), free_row(2, thin=1), free_row(3), *map(free_row, range(4, 9))], [1]),  # one run
        ([free_row(1, boot="a"), free_row(2, boot="b"), free_row(3, boot="a"), *map(free_row, range(4, 9))], [1, 3]),
        ([free_row(1, thin=1), free_row(2, thin=60), *map(free_row, range(3, 6))], [1]),  # of the older half only
        ([free_row(1, thin=59), free_row(2)], [1]),
        ([free_row(1, thin=60), free_row(2)], []),  # as coarse as can be
    ],
)
def test_what_is_thinned_next(rows, keys):
    assert [row.entry.key for row in next_to_thin(rows, 20)] == keys


def view(rows, taken=()):
    """Rows as the buffer shows them, by kind and boot."""
    queues = []
    for kind, boot in dict.fromkeys(row[1:] for row in rows):
        index = Index()
        for row in rows:
            if row[1:] == (kind, boot):
                index.add(row.entry)
        queues.append((index.columns(), kind, boot))
    return retention.View(queues, frozenset(taken))


def test_the_oldest_rows_go_of_whatever_kind_until_there_is_room():
    rows = [free_row(2), free_row(4), free_row(1, kind=Kind.UNDATED, boot="a"), free_row(3, kind=Kind.PARKED)]
    assert [retention.oldest(view(rows), over) for over in (0, 99, 100, 199, 300)] == [
        [1],
        [1],
        [1, 2],
        [1, 2],
        [1, 2, 3, 4],
    ]
    assert retention.oldest(view(rows, taken=(1, 3)), 10**6) == [2, 4]
    assert len(retention.oldest(view([free_row(key) for key in range(1, 1100)]), 10**6)) == 1000


def test_what_is_too_old_goes_once_all_of_its_row_is():
    rows = [
        FreeRow(Entry(1, 5, 0, 10, 0, 100, 199), Kind.PENDING, ""),
        FreeRow(Entry(2, 5, 0, 10, 0, 100, 200), Kind.PENDING, ""),
        FreeRow(Entry(3, 5, 0, 10, 0, 100, 150), Kind.SUSPECT, ""),
        FreeRow(Entry(4, 5, 0, 10, 0, 100, 150), Kind.UNDATED, "a"),
    ]
    assert retention.aged(view(rows), 200) == [1, 3]


def test_how_much_is_too_much():
    assert [retention.budget(size) for size in (2_000_000, 4_000_000, 6_000_000)] == [1_000_000, 2_000_000, 4_000_000]
    assert retention.excess(4_000_000, 0, 0, 6_000_000) == 0
    assert retention.excess(4_000_000, 100, 500, 6_000_000) == 100 * 40 - 500


def in_memory(*counts, thin=()):
    blocks = [
        Block(-n, Kind.PENDING, [b"m a=%d %d" % (n, i) for i in range(count)], True)
        for n, count in enumerate(counts, 1)
    ]
    for block, times in zip(blocks, thin, strict=False):
        block.thin = times
    return blocks


@pytest.mark.parametrize(
    ("policy", "excess", "left"),
    [
        ("drop_oldest", 3, {-1: [3]}),
        ("drop_oldest", 4, {-1: []}),
        ("drop_oldest", 5, {-1: [], -2: [1, 2, 3]}),
        ("drop_newest", 1, {-3: [0, 1, 2]}),
        ("drop_newest", 5, {-3: [], -2: [0, 1, 2]}),
        ("thin", 1, {-2: [0, 2]}),
        ("thin", 2, {-2: [0, 2]}),
        ("thin", 3, {-2: [0, 2], -3: [0, 2]}),
        ("thin", 6, {-2: [0, 2], -3: [0, 2], -1: [0, 2]}),
        ("drop_oldest", 0, {}),
        ("drop_newest", 0, {}),
        ("thin", 0, {}),
    ],
)
def test_promise_6_what_is_left_in_a_memory_that_is_full(policy, excess, left):
    found = {
        block.id: [int(text.split()[-1]) for text in kept]
        for block, kept in retention.shrunk(in_memory(4, 4, 4, thin=(1,)), excess, policy)
    }
    assert found == left


def test_what_cannot_become_coarser_in_memory_goes():
    assert [(block.id, kept) for block, kept in retention.shrunk(in_memory(1, 1), 1, "thin")] == [(-1, [])]


def test_many_small_rows_become_one(folder, clock):
    buffer = open_at(folder, clock)
    outage(buffer, clock, 36, count=10)
    assert buffer.snapshot().rows == 36
    outage(buffer, clock, 1, count=10)
    assert buffer.snapshot().rows == 2
    outage(buffer, clock, 600, count=10)
    assert buffer.snapshot().rows < 60
    assert stamps(buffer) == list(range(6370))
    accounted(buffer)
    buffer.close()


def test_parts_take_the_place_of_the_batch_so_that_the_oldest_stay_first(folder, clock):
    buffer = open_at(folder, clock)
    outage(buffer, clock, 3)
    batch = buffer.take_backlog(50)
    lines = batch.lines()
    buffer.replace(batch, [Part(tuple(lines), "pending")], [])
    buffer.commit_all()
    assert buffer.take_backlog(50).lines() == lines
    buffer.close()


def test_a_burst_beyond_half_of_the_memory_is_committed_at_once(folder, clock):
    buffer = open_at(folder, clock, memory_points=100)
    buffer.put([line(clock) for _ in range(60)])
    assert buffer.commit_due(clock.boot_ns())
    assert buffer.commit()
    assert buffer.snapshot().pending_disk == 60
    buffer.close()


def boots_without_a_clock(folder, monkeypatch, limit, boots=6, points=1500):
    """Runs one after the other, each of a boot whose time is never known. Returns the last buffer."""
    small(monkeypatch, limit)
    buffer = None
    for number in range(boots):
        if buffer is not None:
            buffer.close()
        clock = HandClock(offset_ns=None, boot_id=f"{number:08d}-2222-4333-8444-555555555555")
        buffer = open_at(folder, clock)
        outage(buffer, clock, points // 50)
    return buffer


def stretches(buffer):
    """Seconds since the boot, of the points that are left of each boot."""
    with OfflineBuffer(buffer.folder, write=False) as offline:
        found = {}
        for header, lines in offline.waiting():
            found.setdefault(header.boot, []).extend(int(text.split()[-1]) // SECOND for text in lines)
    return {boot: sorted(times) for boot, times in found.items()}


def test_promise_6_no_boot_is_lost_while_another_is_at_full_rate(folder, monkeypatch):
    """Of six boots without a clock the first lost all but its last points once."""
    buffer = boots_without_a_clock(folder, monkeypatch, 60_000)
    status = buffer.snapshot()
    assert set(status.counters.points.dropped) == {"thinned"}
    accounted(buffer)
    found = stretches(buffer)
    assert len(found) == 6
    for times in found.values():
        assert times[0] == 1000
        assert times[-1] >= 1000 + 1500 - 64
        assert max(later - earlier for earlier, later in pairwise(times)) <= 64
    steps = [max(later - earlier for earlier, later in pairwise(times)) for times in found.values()]
    assert steps[-1] == 1, "the newest half stays as it was"
    assert max(steps[:3]) <= 4 * min(steps[:3]), "the older half is evenly coarse"
    buffer.close()


def test_promise_6_an_outage_is_not_lost_to_what_a_later_boot_could_not_date(folder, monkeypatch):
    """100,000 s of an outage lost all their points while a later boot's undated points stayed at 1 Hz once."""
    small(monkeypatch)
    clock = HandClock()
    buffer = open_at(folder, clock)
    outage(buffer, clock, 60)
    buffer.close()
    later = HandClock(now_s=10, offset_ns=None, boot_id=OTHER_BOOT)
    buffer = open_at(folder, later)
    outage(buffer, later, 140)
    accounted(buffer)
    found = stretches(buffer)
    dated, undated = found[""], found[OTHER_BOOT]
    assert len(dated) > 100
    assert max(after - before for before, after in pairwise(dated)) <= 64
    assert dated[-1] - dated[0] >= 2900
    assert len(undated) > len(dated)
    assert set(buffer.snapshot().counters.points.dropped) == {"thinned"}
    buffer.close()


rows = st.lists(
    st.tuples(st.sampled_from([(Kind.PENDING, ""), (Kind.UNDATED, "a"), (Kind.UNDATED, "b")]), st.integers(1, 400)),
    min_size=1,
    max_size=60,
)


@given(rows, st.integers(1, 8), st.integers(1, 200))
def test_promise_6_whatever_waits_the_older_half_gets_evenly_coarse_and_nothing_goes_wholly(queues, series, rounds):
    """As the buffer does it: a run becomes one row, of which every second line of each series goes."""
    waiting = [
        FreeRow(Entry(key, points, 0, 40 * points), kind, boot) for key, ((kind, boot), points) in enumerate(queues, 1)
    ]
    kinds = {row[1:] for row in waiting}
    for _ in range(rounds):
        run = next_to_thin(waiting, 5000)
        if not run:
            break
        total = sum(row.entry.points for row in waiting)
        newer = sum(row.entry.points for row in waiting if row.entry.key > run[-1].entry.key)
        assert newer * 2 >= total - max(row.entry.points for row in waiting) * 2, "only the older half"
        assert len({row[1:] for row in run}) == len({row.entry.thin for row in run}) == 1
        older = [row for row in waiting if row.entry.key < run[0].entry.key]
        assert all(row.entry.thin >= run[0].entry.thin or row[1:] != run[0][1:] for row in older), "the oldest first"
        points = sum(row.entry.points for row in run)
        left = max(points - points // 2, min(series, points))
        key, thin = run[0].entry.key, run[0].entry.thin + 1
        merged = FreeRow(Entry(key, left, 0, 40 * left, thin), run[0].kind, run[0].boot)
        gone = {row.entry.key for row in run}
        waiting = sorted([merged, *(row for row in waiting if row.entry.key not in gone)], key=lambda r: r.entry.key)
        assert {row[1:] for row in waiting} == kinds, "no kind and no boot goes"


@pytest.mark.slow
@pytest.mark.timeout(600)  # as long as five million points take on a machine that others use
def test_promise_6_60_days_at_1_hz_over_five_boots_in_4_mb(tmp_path):
    """No gap is longer than the coarsest step anywhere."""
    folder, clock = tmp_path / "buffer", HandClock(now_s=0)
    offsets = [None, UNIX_NS, None, UNIX_NS, None]
    for number, offset in enumerate(offsets):
        clock = HandClock(
            now_s=number * 12 * 86_400, offset_ns=offset, boot_id=f"{number:08d}-2222-4333-8444-555555555555"
        )
        buffer = open_at(folder, clock, max_size=4_000_000)
        for _ in range(12 * 24 * 6):
            heads = b"environment,clientId=pi,device=pi Temperature=2%d.%d"
            buffer.put([Line(heads % (n % 7, n % 97), clock.now_ns + n * SECOND) for n in range(600)])
            clock.pass_s(600)
            assert buffer.commit_all()
        accounted(buffer)
        size = buffer.snapshot().file_bytes
        buffer.close()
    assert size < 4_000_000
    buffer = open_at(folder, clock, max_size=4_000_000)
    assert set(buffer.snapshot().counters.points.dropped) == {"thinned"}
    unix = UNIX_NS // SECOND
    times = sorted(t - unix if t > unix else t for found in stretches(buffer).values() for t in found)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    print(f"{len(times)} points left of {60 * 86_400}, the longest gap {max(gaps)} s, {size} bytes")
    coarsest = 2 ** max(row.entry.thin for row in buffer._queue.view().oldest_first())
    assert max(gaps) <= 2 * coarsest
    assert times[0] == 0
    assert times[-1] == 60 * 86_400 - 1
    buffer.close()
