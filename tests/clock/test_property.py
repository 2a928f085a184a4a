"""Whatever happens to the clocks: times are right within the stated error, and none is given twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock.kernel import MAX_ERROR_NS
from agent.clock.sources import SECOND
from tests.amounts import amount
from tests.clock_world import DAY, HOUR, NOW_NS, World, error_ns

MS = 1_000_000

EVENTS = st.one_of(
    st.tuples(st.just("measure"), st.integers(1, 50)),
    st.tuples(st.just("wait"), st.sampled_from([MS, 150 * MS, SECOND, 60 * SECOND, HOUR, 10 * HOUR])),
    st.tuples(st.just("step"), st.sampled_from([-2 * HOUR, 5 * 365 * DAY, -SECOND, SECOND, -40 * DAY])),
    st.tuples(st.just("synchronise"), st.sampled_from([0, 0, 300 * MS, -300 * MS])),
    st.tuples(st.just("suspend"), st.sampled_from([SECOND, HOUR, 3 * DAY])),
    st.tuples(st.just("answer"), st.sampled_from([2 * MS, 40 * MS, 3 * SECOND])),
    st.tuples(st.just("contact"), st.sampled_from([2 * MS, 900 * MS])),
    st.tuples(st.just("restart"), st.just(0)),
)


@settings(max_examples=amount(50, 200))
@given(
    events=st.lists(EVENTS, max_size=40),
    drift=st.integers(-60, 60),
    wall=st.sampled_from([0, 3 * SECOND, 300 * MS, -40 * DAY, 4 * 365 * DAY]),
    kernel=st.sampled_from([None, MAX_ERROR_NS]),
)
def test_promise_5_times_are_right_within_the_stated_error_and_none_twice(
    tmp_path_factory, events, drift, wall, kernel
):
    world = World(drift_ppm=drift, wall_ns=NOW_NS + wall, max_error_ns=kernel)
    folder = tmp_path_factory.mktemp("clock")
    clock = world.clock(folder)
    given_out = []  # (boot clock, true time, time given, stated error)
    waiting = []

    def date():
        """As the buffer does: what waits is dated once the time is known, and stays."""
        for boot, true in waiting:
            time = clock.date(boot)
            if time is None:
                return
            given_out.append((boot, true, time, error_ns(clock, boot)))
        waiting.clear()

    for event, value in events:
        match event:
            case "measure":
                for _ in range(value):
                    waiting.append((world.measure(), world.true_ns))
                    world.wait(200 * MS)
            case "synchronise":
                if world.max_error_ns is not None:
                    world.synchronise(value)
            case "answer" | "contact":
                getattr(world, event)(clock, travel_ns=value)
            case "restart":
                world.wait(150 * MS)
                clock = world.clock(folder)
            case _:
                getattr(world, event)(value)
        clock.poll()
        date()
    times = [time for _, _, time, _ in given_out]
    assert len(set(times)) == len(times)
    for boot, true, time, error in given_out:
        assert abs(time - true) <= error + MS, f"{boot=} {(time - true) / SECOND} s off, said {error / SECOND}"
