"""Which document stays and who holds the lease, by the points that a bucket has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from center.influx.documents import TEXTS, Texts, holder_of
from tests.center_helpers import influx_settings, stores


def row(time_ns, text, name="a", kind="device"):
    return {"_time": time_ns, "_value": text, "kind": kind, "name": name}


@given(
    st.lists(
        st.builds(
            row, st.integers(0, 5), st.sampled_from(["-", "1", "2"]), st.sampled_from("ab"), st.sampled_from("kl")
        ),
        max_size=12,
    ),
    st.randoms(),
)
def test_the_newest_text_stays_in_whatever_order_they_come_into_sight(rows, random):
    in_order = Texts("b1")
    in_order.take(sorted(rows, key=lambda row: (row["_time"], row["_value"])))
    texts = Texts("b1")
    random.shuffle(rows)
    for some in (rows[: len(rows) // 2], rows[len(rows) // 3 :]):
        texts.take(some)
    assert texts.by_kind == in_order.by_kind
    newest = {
        (row["kind"], row["name"]): max(
            (r["_time"], r["_value"]) for r in rows if r["kind"] == row["kind"] and r["name"] == row["name"]
        )
        for row in rows
    }
    assert {(kind, name): text for kind, named in texts.by_kind.items() for name, text in named.items()} == {
        key: text for key, (_, text) in newest.items() if text != "-"
    }
    assert texts.since_ns == max((row["_time"] for row in rows), default=None)


@pytest.mark.influxdb
def test_of_a_document_that_is_written_often_only_the_newest_text_is_read():
    with influx_settings() as settings, stores(settings) as (registry, _):
        for text in ("1", "2", "3", None):
            registry.keep_document("device", "a", text)
            registry.keep_document("device", "b", "1")
            rows = registry._rows("document", TEXTS)
            assert sorted((row["name"], row["_value"]) for row in rows) == [("a", text or "-"), ("b", "1")]


@pytest.mark.parametrize(
    ("bids", "holder"),
    [
        ([], ""),
        (["claim a"], "a"),
        (["claim a", "claim b"], "a"),
        (["claim a", "claim a"], "a"),  # its answer was lost
        (["claim a", "end a"], ""),
        (["claim a", "end b"], "a"),
        (["claim a", "end a", "claim b"], "b"),
        (["claim b", "renew a"], "a"),  # the claim of a, which came first, is older than what is looked at
        (["renew a", "claim b"], "a"),
        (["renew a", "end a", "claim b", "claim c"], "b"),
    ],
)
def test_the_first_claim_counts_and_a_renewal_proves_one(bids, holder):
    assert holder_of(bids) == holder


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 6))
def test_never_two_hold_it(calls, lasts):
    """Replicas that call one after the other, each a moment later; a bid is in sight for so many moments."""
    log, held = [], {}
    for moment, who in enumerate(calls):
        holds = holder_of(bid for at, bid in log if at > moment - lasts)
        if holds in {"", who}:
            log.append((moment, f"{'renew' if holds else 'claim'} {who}"))
        if holds == who:
            assert all(other == who or moment - at >= lasts for other, at in held.items())
            held[who] = moment
