"""Alerts: what has begun, what happened, the rules, and who is told."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import abort, flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from wtforms import FloatField, SelectField, SelectMultipleField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired, InputRequired, Length, Optional, ValidationError
from wtforms.widgets import CheckboxInput, ListWidget

from agent.util.secret import Secret
from center.alerts import kept, sending
from center.alerts.kept import GIVEN_UP, RECEIVER, SEEN, SENT, Receiver
from center.alerts.rules import MEASURED, Rule, said
from center.alerts.watch import scope
from center.context import current_center
from center.documents import FieldsError
from center.errors import RefusedError
from center.pages.blueprint import administrators_only, live_page, pages
from center.profiles import profiles
from center.stores.telemetry import DAY_NS
from center.times import now_ns
from drivers.quantities import QUANTITIES

WHATS = {
    "silent": "A device is silent",
    "above": "A value is above",
    "below": "A value is below",
    "changes": "A value changes fast",
    "failing": "A sensor fails",
    "backlog": "Points wait to be delivered",
    "rejected": "Points are refused",
    "clock": "The clock is not synchronised",
}
SCOPES = {"all": "All devices", "group": "A group", "device": "One device"}
EXAMPLES: Mapping[str, Rule] = {
    "silent": Rule("A device is silent", "silent", 30),
    "frost": Rule("Frost in the greenhouse", "below", 2, 1, 10, field="Temperature"),
    "freezer": Rule("Freezer door", "above", -15, 2, 20, field="Temperature"),
    "cellar": Rule("Damp cellar", "above", 75, 5, 120, field="Humidity"),
}
SHOWN = 20  # devices of a rule


class RuleForm(FlaskForm):  # type: ignore[misc]  # Flask-WTF has no types
    """The fields are a Rule's; what is right, rules.py says."""

    name = StringField("Name", [InputRequired("Give the rule a name.")], description="It is the title of the message.")
    what = SelectField("What", choices=[SelectChoice(k, v) for k, v in WHATS.items()])
    field = StringField("Quantity", [Optional()], description="As stored: Temperature, Humidity, …")
    sensor = StringField("Sensor", [Optional()], description="Empty: each.")
    threshold = FloatField("Threshold", [Optional()], description="In the unit of the quantity, minutes, or points.")
    hysteresis = FloatField("Ends this far back", [Optional()], description="So that it does not come and go.")
    duration_min = FloatField("For minutes", [Optional()], description="0: with the first value.")
    window_min = FloatField("Within minutes", [Optional()], description="Over which the change is told.")
    scope = SelectField("Devices", choices=[SelectChoice(k, v) for k, v in SCOPES.items()])
    of = StringField("Which one", [Optional()])
    receivers = SelectMultipleField("Tell", option_widget=CheckboxInput(), widget=ListWidget(prefix_label=False))

    def validate_of(self, of: StringField) -> None:
        """A rule for a name that nothing has would be silent for ever."""
        if self.scope.data == "device" and current_center().registry.device(of.data) is None:
            raise ValidationError(f"There is no device with the id {of.data}.")
        if self.scope.data == "group" and of.data not in _groups():
            raise ValidationError(f"There is no device in a group {of.data}.")


class ReceiverForm(FlaskForm):  # type: ignore[misc]
    name = StringField("Name", [DataRequired("Give the receiver a name."), Length(max=64)])
    url = StringField(
        "Address",
        [InputRequired("Paste an address of Apprise's."), Length(max=2000)],
        description="Mail: mailtos://user:password@example.org?to=me@example.org (with user and password of your mail "
        "provider, at its domain). A push on your phone: install the app ntfy, subscribe there to a topic that nobody "
        "guesses, and write ntfy://topic. A webhook: jsons://example.org/path. In a password @ is %40, / is %2F, # is "
        "%23. It is shown this once.",
    )

    def validate_name(self, name: StringField) -> None:
        if any(known.name == name.data.strip() for known in kept.receivers(current_center().registry).values()):
            raise ValidationError(f"There is a receiver {name.data.strip()} already: give this one another name.")


def _groups() -> list[str]:
    return sorted({profile.group for profile in profiles(current_center().registry).values() if profile.group})


@pages.get("/alerts")
def alerts() -> Any:
    return _page(ReceiverForm(formdata=None))


def _page(form: ReceiverForm) -> Any:
    center = current_center()
    registry = center.registry
    rules, people, unseen = kept.rules(registry), profiles(registry), kept.unseen(registry)
    firing = [
        (rule_id, rule, sorted(states.items()), rule_id in unseen)
        for rule_id, found in kept.alerts(registry).items()
        if (rule := rules.get(rule_id)) and (states := {k: s for k, s in found.items() if s.fired_ns})
    ]
    return live_page(
        "alerts.html",
        firing=sorted(firing, key=lambda one: (not one[3], one[1].name)),
        history=kept.events(registry),
        rules=rules,
        judged=bool(center.loops),
        receivers=kept.receivers(registry),
        names={device: profile.name for device, profile in people.items() if profile.name},
        examples=EXAMPLES,
        form=form,
        said=said,
        SHOWN=SHOWN,
        SENT=SENT,
        GIVEN_UP=GIVEN_UP,
    )


@pages.route("/alerts/rules/<rule_id>", methods=["GET", "POST"])
@administrators_only
def rule(rule_id: str) -> Any:
    """A rule to be edited; `new`, of an example or a copy of another."""
    registry = current_center().registry
    rules, new = kept.rules(registry), rule_id == "new"
    example = EXAMPLES.get(request.args.get("example", ""))
    shown = rules.get(request.args.get("copy", ""), example) if new else rules.get(rule_id) or abort(404)
    form = RuleForm(obj=shown)
    form.receivers.choices = [SelectChoice(i, receiver.name) for i, receiver in kept.receivers(registry).items()]
    form.of.description = f"The id of a device, or a group: {', '.join(_groups()[:SHOWN]) or 'there is none yet'}."
    if form.validate_on_submit():
        given = {f.short_name: f.data for f in form if f.short_name != "csrf_token" and f.data is not None}
        try:
            made = secrets.token_hex(4) if new else rule_id
            kept.keep_rule(registry, made, given | {"enabled": shown is None or new or shown.enabled})
        except FieldsError as error:
            for name, why in error.each.items():
                form._fields.get(name, form.name).errors = [f"{why[:1].upper()}{why[1:]}."]
        else:
            flash(f"The rule {form.name.data} is kept.", "success")
            if why := _unmeasured(kept.rules(registry)[made]):
                flash(why, "warning")
            return redirect(url_for("pages.alerts"))
    page = render_template("rule.html", form=form, new=new, quantities=QUANTITIES)
    return page, 400 if form.errors else 200


def _unmeasured(rule: Rule) -> str:
    """That a rule waits for a quantity, or a sensor, that none of its devices has: mistyped, it would for ever."""
    center = current_center()
    if rule.what not in MEASURED:
        return ""
    known = scope(rule, [device.id for device in center.registry.devices().devices], profiles(center.registry))
    found = center.telemetry.last_values(sorted(known), since_ns=now_ns() - DAY_NS)
    there = {(last.field, last.sensor.label) for lasts in found.values() for last in lasts}
    if not there or any(field == rule.field and rule.sensor in {"", sensor} for field, sensor in there):
        return ""
    sensors = sorted({sensor for field, sensor in there if field == rule.field})
    names = ", ".join((sensors or sorted({field for field, _ in there}))[:SHOWN])
    what = f"{rule.field} by a sensor {rule.sensor}" if sensors else rule.field
    return f"No device that it is about has measured {what} within a day, so it waits. Known are: {names}."


@pages.post("/alerts/rules/<rule_id>/<any(seen,switch,delete):what>")
@administrators_only
def change_rule(rule_id: str, what: str) -> Any:
    registry = current_center().registry
    known = kept.rules(registry).get(rule_id) or abort(404)
    if what == "seen":  # no more than was shown
        registry.keep_document(SEEN, rule_id, str(request.form.get("until", 0, type=int)))
    elif what == "switch":
        kept.keep_rule(registry, rule_id, replace(known, enabled=not known.enabled))
    else:
        kept.forget_rule(registry, rule_id)
        flash(f"The rule {known.name} is deleted, and its alerts with it.", "success")
    return redirect(url_for("pages.alerts"))


@pages.post("/alerts/receivers")
@administrators_only
def add_receiver() -> Any:
    registry, form = current_center().registry, ReceiverForm()
    if form.validate_on_submit():
        url = Secret(form.url.data.strip())
        try:
            receiver = Receiver(form.name.data.strip(), url, sending.check(url))
            kept.keep_receiver(registry, secrets.token_hex(4), receiver)
        except RefusedError as error:
            form.url.errors = [f"{str(error)[:1].upper()}{str(error)[1:]}."]
        else:
            flash(f"{receiver.name} is added: send it a test.", "success")
            return redirect(url_for("pages.alerts"))
    return _page(form), 400


@pages.post("/alerts/receivers/<receiver_id>/<any(test,delete):what>")
@administrators_only
def change_receiver(receiver_id: str, what: str) -> Any:
    """Delete one, or send it a test and say what happened."""
    registry = current_center().registry
    receiver = kept.receivers(registry).get(receiver_id) or abort(404)
    if what == "delete":
        for rule_id, rule in kept.rules(registry).items():
            if receiver_id in rule.receivers:
                others = tuple(one for one in rule.receivers if one != receiver_id)
                kept.keep_rule(registry, rule_id, replace(rule, receivers=others))
        registry.keep_document(RECEIVER, receiver_id, None)
        flash(f"{receiver.name} is deleted.", "success")
    elif why := sending.send(receiver.url, "A test", "This is how an alert of the IoT Center arrives.", good=True):
        flash(f"The test did not reach {receiver.name}: {why}", "danger")
    else:
        flash(f"The test is sent to {receiver.name}.", "success")
    return redirect(url_for("pages.alerts"))
