"""The thread that looks: of all replicas the one that holds the lease. It judges, writes down, and has sent."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from agent.config.units import rough_duration
from agent.util.backoff import growing
from agent.util.loops import Loop
from center.alerts import kept, sending
from center.alerts.kept import GIVEN_UP, SENT, WAITING, Key, Message, Receiver
from center.alerts.rules import Event, Rule, State, said, step
from center.alerts.values import Memory, Newest, newest
from center.context import Center
from center.errors import StoreError
from center.faults import log_once
from center.profiles import Profile, profiles
from center.stores.registry import LEASE_S
from center.times import now_ns

log = logging.getLogger(__name__)
EVERY_S, WAITING_S = 15.0, 5.0  # between looks; between tries to get the lease
SHARE = 10  # the next look begins after so many times what the last one took
FINISH_S = 3.0  # a stop waits as long for what is being sent
NAMED = 20  # devices in a message
RETRY_S, RETRY_MOST_S = 15.0, 600.0
FAILING_S = 60.0  # a store that fails for as long is no hiccup: nothing is judged, and that is said
LATE_S = 300.0  # a message says how old it is
KEPT_UP_NS = 86_400 * 1_000_000_000  # how long a message is tried
Begun = tuple[Key, float, int]  # what of, the value, and since when (Unix ns)


class Watch(Loop):
    """An agent.util.loops.Loop. One thread looks and writes; each receiver that has something to be told gets another
    for as long as that takes, so that none waits for another.
    """

    def __init__(self, center: Center) -> None:
        self.wakeup = threading.Event()
        self._center, self._registry = center, center.registry
        self._me = secrets.token_hex(8)
        self._memory = Memory()
        self._states: dict[str, dict[Key, State]] | None = None  # None: another replica holds the lease, or none does
        self._told: dict[int, Message] = {}  # those that somebody is still to be told of
        self._number = 0
        self._busy: set[str] = set()
        self._fails: dict[str, tuple[int, float]] = {}  # of a receiver: how often in a row, and when it is tried again
        self._done: deque[tuple[str, Sequence[int], str]] = deque()
        self._next_s = self._asked_s = 0.0
        self._failing_s: float | None = None  # since when no look could be taken
        self.problem: str | None = None

    def step(self) -> float:
        """What was sent is written down at once; a look is taken when it is due."""
        try:
            self._settle()
            if self._states is not None:
                self._renew()
            if due := (started := time.monotonic()) >= self._next_s:
                holds = self._look(now_ns(), started)
                took = time.monotonic() - started
                self._next_s = started + max(EVERY_S if holds else WAITING_S, SHARE * took)
            if self._states is not None:
                self._send(time.monotonic())
            if due:
                self._works()
        except StoreError as error:
            log_once(error)
            self._fails_by(error, time.monotonic())
            self._memory, self._states = Memory(courses=self._memory.courses), None
            self._next_s = time.monotonic() + WAITING_S
        return min(max(self._next_s - time.monotonic(), 0.1), EVERY_S)

    def _fails_by(self, error: StoreError, steady_s: float) -> None:
        """Said also of a fault that the store's log knows, or that is none of the store's."""
        if self._failing_s is None:
            self._failing_s = steady_s
        if steady_s - self._failing_s >= FAILING_S:
            if self.problem is None:
                log.error("alerts are not judged: %s", error)
            self.problem = f"judging alerts fails: {error}"

    def _works(self) -> None:
        if self.problem:
            log.info("alerts are judged again")
        self._failing_s = self.problem = None

    def finish(self) -> None:
        try:
            for _ in range(round(FINISH_S / 0.1)):
                if not self._busy:
                    break
                self.wakeup.clear()
                self.wakeup.wait(0.1)
                self._settle()  # or who comes next sends it again
            self._registry.end_lease(self._me)
        except StoreError as error:
            log.debug("%s", error)  # it ends by itself

    def _renew(self) -> bool:
        """Whether the lease is held here. Asked for again well before it ends, also in a long look."""
        if self._states is None or time.monotonic() > self._asked_s + LEASE_S / 6:
            self._asked_s = time.monotonic()
            if not self._registry.hold_lease(self._me):
                self._states = None
            elif self._states is None:
                log.info("alerts are judged by this process from now on")
                self._states = kept.alerts(self._registry)
                events = kept.events(self._registry)
                self._told = {told.number: told for told in events if told.waiting}
                self._number = max((told.number for told in events), default=0)
        return self._states is not None

    def _left(self) -> bool:
        """Whether somebody is still to be told of something."""
        return any(told.waiting for told in kept.events(self._registry))

    def _look(self, now: int, started: float) -> bool:
        """False where another replica holds the lease, or nothing is to be done."""
        rules = {rule_id: rule for rule_id, rule in kept.rules(self._registry).items() if rule.enabled}
        if not (rules or self._states or self._told or kept.alerts(self._registry) or self._left()):
            self._states = None  # nor is the lease asked for
            return True
        if not self._renew():
            return False
        known = {device.id for device in self._registry.devices().devices} if rules else set()
        people = profiles(self._registry) if rules else {}
        wanted = {rule_id: scope(rule, known, people) for rule_id, rule in rules.items()}
        there = newest(self._center.telemetry, {rule: wanted[i] for i, rule in rules.items()}, now, self._renew)
        judged = {i: self._judge(i, rule, wanted[i], there, now=now, steady_s=started) for i, rule in rules.items()}
        self._memory.keep({rule_id + rule.about for rule_id, rule in rules.items()})
        if not self._renew():
            return False
        for rule_id, (_, events_of) in judged.items():
            for event, begun in events_of.items():
                self._tell(rule_id, rules[rule_id], event, begun, people=people, now=now)
        for rule_id in judged.keys() | (self._states or {}).keys():
            after, _ = judged.get(rule_id, ({}, {}))  # of a rule that is gone, or off, they end without a word
            self._keep(rule_id, after)
        return True

    def _judge(
        self, rule_id: str, rule: Rule, devices: Collection[str], there: Newest, *, now: int, steady_s: float
    ) -> tuple[dict[Key, State], dict[Event, list[Begun]]]:
        """The states of a rule after this look, and what began and ended."""
        before = (self._states or {}).get(rule_id, {})
        sensors: dict[str, set[str]] = defaultdict(set)
        for key in before:
            if key.about == rule.about:
                sensors[key.device].add(key.sensor)
        after: dict[Key, State] = {}
        found: dict[Event, list[Begun]] = defaultdict(list)
        for device in sorted(devices):
            had = sensors.get(device, set())
            values = self._memory.values(rule_id, rule, device, there, had, now, steady_s)
            for sensor in sorted(values.keys() | had):
                key, (value, at) = Key(device, sensor, rule.about), values.get(sensor, (None, now))
                state, event = step(rule, before.get(key), value, at, now)
                if state:
                    after[key] = state
                if event and value is not None:
                    found[event].append((key, value, (state or before[key]).since_ns))
        return after, found

    def _keep(self, rule_id: str, after: dict[Key, State]) -> None:
        """Write what changed."""
        assert self._states is not None
        before = self._states.get(rule_id, {})
        parts = {key.part for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        kept.keep_alerts(self._registry, rule_id, after, parts)
        self._states[rule_id] = after
        if not after:
            del self._states[rule_id]

    def _tell(
        self, rule_id: str, rule: Rule, event: Event, begun: Sequence[Begun], *, people: Mapping[str, Profile], now: int
    ) -> None:
        """Write down what is to be sent: one message, however many devices it is about."""
        lines = []
        for key, value, since in begun[:NAMED]:
            name = people.get(key.device, Profile()).name
            who = (f"{name} ({key.device})" if name else key.device) + (f", {key.whose}" if key.whose else "")
            lasted = f", after {rough_duration((now - since) / 1e9)}" if event == "ends" else ""
            lines.append(f"{who}: {said(rule, value)}{lasted}")
        if len(begun) > NAMED:
            lines.append(f"and {len(begun) - NAMED} more")
        if url := self._center.settings.server.public_url:
            lines.append(f"{url.rstrip('/')}/alerts")
        self._number += 1
        told = Message(
            number=self._number,
            at_ns=now,
            rule=rule_id,
            event=event,
            title=rule.name if event == "begins" else f"Over: {rule.name}",
            text="\n".join([rule.words[:1].upper() + rule.words[1:], *lines]),
            receivers=dict.fromkeys(rule.receivers, WAITING),
        )
        kept.keep_event(self._registry, told)
        if told.waiting:
            self._told[told.number] = told

    def _send(self, steady_s: float) -> None:
        """To each receiver all that it is still to be told, in one message."""
        waiting: dict[str, list[Message]] = defaultdict(list)
        for _, told in sorted(self._told.items()):
            for receiver_id in told.waiting:
                if receiver_id not in self._busy and steady_s >= self._fails.get(receiver_id, (0, 0.0))[1]:
                    waiting[receiver_id].append(told)
        receivers = kept.receivers(self._registry) if waiting else {}
        for receiver_id, several in waiting.items():
            receiver = receivers.get(receiver_id)
            job = threading.Thread(target=self._deliver, args=(receiver_id, receiver, several), daemon=True)
            job.start()
            self._busy.add(receiver_id)  # not before: a system out of threads starts none

    def _deliver(self, receiver_id: str, receiver: Receiver | None, several: Sequence[Message]) -> None:
        why = f"{GIVEN_UP}: the receiver was removed"
        if receiver:
            why = sending.send(receiver.url, *combined(several, now_ns()), good=all(t.event == "ends" for t in several))
            if why and receiver_id not in self._fails:  # said when it begins and when it is over
                log.warning("an alert did not reach %s, and is sent again: %s", receiver.name, why)
            elif not why and receiver_id in self._fails:
                log.info("alerts reach %s again", receiver.name)
        self._done.append((receiver_id, [told.number for told in several], why))
        self.wakeup.set()

    def _settle(self) -> None:
        """Write down what came of what was sent."""
        while self._done:
            receiver_id, numbers, why = self._done[0]
            fails = self._fails.pop(receiver_id, (0, 0.0))[0] + 1
            if why:
                self._fails[receiver_id] = fails, time.monotonic() + growing(fails, RETRY_S, RETRY_MOST_S)
            for number in numbers:
                if told := self._told.get(number):
                    late = now_ns() - told.at_ns > KEPT_UP_NS and not why.startswith(GIVEN_UP)
                    how = (f"{GIVEN_UP}: {why}" if late else why) if why else SENT
                    changed = replace(told, receivers={**told.receivers, receiver_id: how})
                    if changed != told and number > self._number - kept.EVENTS:  # else a newer one has its place
                        kept.keep_event(self._registry, changed)
                    self._told[number] = changed
                    if not changed.waiting:
                        del self._told[number]
            self._done.popleft()  # and not before it was written
            self._busy.discard(receiver_id)


def combined(several: Sequence[Message], now: int) -> tuple[str, str]:
    """Title and text; of several at once the newest NAMED."""

    def text(told: Message) -> str:
        late = (now - told.at_ns) / 1e9
        return told.text + (f"\nThis was {rough_duration(late)} ago." if late > LATE_S else "")

    if len(several) == 1:
        return several[0].title, text(several[0])
    more = f"{len(several) - NAMED} earlier ones are on the page.\n\n" if len(several) > NAMED else ""
    return f"{len(several)} alerts", more + "\n\n".join(f"{told.title}\n{text(told)}" for told in several[-NAMED:])


def scope(rule: Rule, known: Collection[str], people: Mapping[str, Profile]) -> Collection[str]:
    """The devices that a rule is about."""
    if rule.scope == "all":
        return known
    return {i for i in known if rule.of == (i if rule.scope == "device" else people.get(i, Profile()).group)}
