"""Documents and the lease of the registry on InfluxDB, as points of the auth bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from center.influx.auth_bucket import AuthBucket
from center.influx.claims import NONE
from center.influx.client import Influx
from center.influx.roll import Known, Roll, since
from center.stores.registry import LEASE_S, check_document
from center.stores.rows import Row

COLUMNS = '["_time", "_value", "kind", "name"]'
# Of each document its newest text only: the storage engine finds that, however often it was written anew.
TEXTS = f'|> filter(fn: (r) => r._field == "text") |> last() |> group() |> keep(columns: {COLUMNS})'
BIDS = '|> filter(fn: (r) => r._field == "bid") |> group() |> sort(columns: ["_time"]) |> keep(columns: ["_value"])'


class Texts(Known):
    """The documents of one bucket; of each the newest stays."""

    def __init__(self, bucket_id: str) -> None:
        super().__init__(bucket_id)
        self.by_kind: dict[str, Mapping[str, str]] = {}
        self._found: dict[tuple[str, str], tuple[int, str]] = {}

    def take(self, rows: Iterable[Row]) -> None:
        changed = set()
        for row in rows:
            kind, name, found = row["kind"], row["name"], (row["_time"], str(row.get("_value", "")))
            if found > self._found.get((kind, name), ()):
                self._found[kind, name] = found
                self.since_ns = max(self.since_ns or 0, row["_time"])
                changed.add(kind)
        for kind in changed:
            self.by_kind[kind] = {
                name: text for (of, name), (_, text) in self._found.items() if of == kind and text != NONE
            }


class Documents(AuthBucket):
    """A part of the registry on InfluxDB."""

    def __init__(self, influx: Influx, bucket_auth: str) -> None:
        super().__init__(influx, bucket_auth)
        self._texts = Roll(
            lambda time_ns: self._rows("document", TEXTS, since(time_ns)),
            lambda: str(influx.needed_bucket(bucket_auth).id),
            Texts,
        )

    def documents(self, kind: str) -> Mapping[str, str]:
        return self._texts.look().by_kind.get(kind, {})

    def document(self, kind: str, name: str) -> str | None:
        return self.documents(kind).get(name)

    def keep_document(self, kind: str, name: str, text: str | None) -> None:
        check_document(text)
        self._write("document", {"kind": kind, "name": name}, {"text": NONE if text is None else text})

    def hold_lease(self, holder: str) -> bool:
        """A claim counts from the next call on: until then an earlier one may come into sight."""
        holds = self._holder()
        if holds not in {"", holder}:
            return False
        self._bid("renew" if holds else "claim", holder)
        return bool(holds)

    def end_lease(self, holder: str) -> None:
        if self._holder() == holder:
            self._bid("end", holder)

    def _holder(self) -> str:
        """Who holds the lease, by the server's clock; "" if it is free."""
        return holder_of(row["_value"] for row in self._rows("lease", BIDS, f"range(start: -{LEASE_S}s)"))

    def _bid(self, what: str, holder: str) -> None:
        self._write("lease", {"lease": "center"}, {"bid": f"{what} {holder}"})


def holder_of(bids: Iterable[str]) -> str:
    """Whose the lease is after the bids of the last LEASE_S in the order of time; "" if it is free.

    Only who holds it renews it, so that a renewal proves a holder whose claim is older than these bids. Of several
    claims the first counts.
    """
    holds = ""
    for bid in bids:
        what, _, who = bid.partition(" ")
        if what == "renew" or (what == "claim" and not holds):
            holds = who
        elif what == "end" and who == holds:
            holds = ""
    return holds
