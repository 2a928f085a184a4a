"""The virtual sensor: weather one could believe, the same for the same moment, and failures on purpose."""

import itertools
import statistics
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.base import QUANTITIES, NotFound, OptionError, Transient, options_for
from drivers.virtual import Virtual, VirtualOptions
from tests.amounts import amount

DAY = 86_400


def unix(*moment):
    return datetime(*moment, tzinfo=UTC).timestamp()


def virtual(**options):
    return Virtual(options_for(Virtual, options))


def course(start, days, every, **options):
    driver = virtual(**options)
    return [driver.values_at(start + i * every) for i in range(int(days * DAY / every))]


def column(values, field):
    return [v[field] for v in values]


def test_the_same_seed_and_moment_give_the_same_values_in_any_order():
    moments = [unix(2026, 3, 1) + 977 * i for i in range(50)]
    forward, backward = virtual(seed=5), virtual(seed=5)
    ahead = [forward.values_at(t) for t in moments]
    assert ahead == [backward.values_at(t) for t in reversed(moments)][::-1]
    assert ahead != [virtual(seed=6).values_at(t) for t in moments]


@settings(max_examples=amount(50, 200))
@given(
    t=st.floats(-1e9, 4e9),
    seed=st.integers(0, 2**63 - 1),
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
)
def test_any_moment_and_place_lies_within_what_a_sensor_measures(t, seed, lat, lon):
    for field, value in virtual(seed=seed, lat=lat, lon=lon).values_at(t).items():
        quantity = QUANTITIES[field]
        assert quantity.low <= value <= quantity.high
        assert type(value) is (int if quantity.kind == "integer" else float)


def test_afternoons_are_warmer_and_drier_than_mornings():
    values = course(unix(2026, 6, 1), 30, 3600)
    by_hour = [values[hour::24] for hour in range(24)]
    warm = [statistics.mean(column(v, "Temperature")) for v in by_hour]
    damp = [statistics.mean(column(v, "Humidity")) for v in by_hour]
    assert 12 <= warm.index(max(warm)) <= 16
    assert 2 <= warm.index(min(warm)) <= 6
    assert damp.index(min(damp)) == pytest.approx(warm.index(max(warm)), abs=2)
    assert 5 < max(warm) - min(warm) < 20


def test_summers_are_warmer_than_winters_and_the_other_way_round_in_the_south():
    def mean(month, lat):
        return statistics.mean(column(course(unix(2026, month, 1), 28, 7200, lat=lat), "Temperature"))

    assert 12 < mean(7, 50) - mean(1, 50) < 30
    assert mean(7, -35) < mean(1, -35)
    assert abs(mean(7, 0) - mean(1, 0)) < 5


def test_pressure_moves_with_slow_systems():
    values = column(course(unix(2026, 1, 1), 60, 3600), "Pressure")
    assert 960 < min(values) < 1008
    assert 1018 < max(values) < 1060
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 3  # hPa an hour


def test_values_move_from_second_to_second_like_a_sensors():
    values = course(unix(2026, 5, 1, 10), 600 / DAY, 1)
    for field, least, most in (("Temperature", 0.001, 0.02), ("Humidity", 0.01, 0.2), ("Pressure", 0.005, 0.1)):
        steps = [b - a for a, b in zip(column(values, field), column(values, field)[1:], strict=False)]
        assert least < statistics.pstdev(steps) < most


def test_the_clock_can_start_at_any_moment():
    now = [5_000_000_000]
    options = options_for(Virtual, {"time": "2026-07-01T12:00:00Z"})
    driver = Virtual(options, clock=lambda: now[0])
    with driver:
        assert driver.read().values == driver.values_at(unix(2026, 7, 1, 12))
        now[0] += 90_000_000_000
        assert driver.read().values == driver.values_at(unix(2026, 7, 1, 12, 1, 30))


def test_now_follows_the_wall_clock():
    driver = Virtual(VirtualOptions(), wall=lambda: 1.7e9)
    with driver:
        assert driver.read().values == driver.values_at(1.7e9)


def attempts(seconds=6000, **options):
    """What reading once a second gives: values, or the class of the error."""
    wall = [1.7e9]
    driver = Virtual(options_for(Virtual, options), wall=lambda: wall[0])
    outcomes = []
    with driver:
        for _ in range(seconds):
            try:
                outcomes.append(driver.read())
            except (Transient, NotFound) as error:
                outcomes.append(type(error))
            wall[0] += 1
    return outcomes


def test_errors_fail_that_share_of_the_readings():
    failed = attempts(errors=0.1).count(Transient)
    assert 450 < failed < 750


def test_gaps_last_a_minute():
    outcomes = [outcome is NotFound for outcome in attempts(gaps=0.3)]
    assert 900 < sum(outcomes) < 2700
    changes = [i for i in range(1, len(outcomes)) if outcomes[i] != outcomes[i - 1]]
    assert all((b - a) % 60 == 0 for a, b in itertools.pairwise(changes))


def test_stuck_values_show_in_the_raw_registers():
    raws = [reading.registers["Humidity"] for reading in attempts(stuck=0.5)]
    same = sum(a == b for a, b in itertools.pairwise(raws))
    assert 2000 < same < 4000
    assert len({attempt.raw for attempt in attempts(stuck=1.0, seconds=60)}) <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"errors": 2}, "'errors' is 2.0: allowed is a number from 0 to 1"),
        ({"seed": -1}, "allowed is a whole number from 0"),
        ({"lat": 91}, "allowed is a number from -90 to 90 degrees"),
        ({"time": "yesterday"}, 'allowed are "now" and a moment like 2026-07-01T12:00:00Z'),
        ({"sead": 1}, "did you mean 'seed'?"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options, said):
    with pytest.raises(OptionError) as caught:
        options_for(Virtual, options)
    assert said in str(caught.value)
