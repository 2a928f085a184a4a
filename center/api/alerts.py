"""The alerts API: what has begun, what happened, and the rules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, abort, jsonify

from center.alerts import kept
from center.api.registration import administrators_only, sent_json
from center.context import current_center
from center.stores.registry import check_device_id
from center.times import iso

blueprint = Blueprint("alerts", __name__, url_prefix="/api/alerts")
blueprint.before_request(administrators_only)


@blueprint.get("")
def alerts() -> Response:
    registry = current_center().registry
    firing = [
        {"rule": rule_id, "device": key.device, "sensor": key.sensor or None, "value": state.value}
        | {"since": iso(state.since_ns), "alertSince": iso(state.fired_ns)}
        for rule_id, states in kept.alerts(registry).items()
        for key, state in states.items()
        if state.fired_ns
    ]
    history = [
        {"at": iso(told.at_ns), "rule": told.rule, "event": told.event, "title": told.title, "text": told.text}
        | {"receivers": told.receivers}
        for told in kept.events(registry)
    ]
    rules = {rule_id: asdict(rule) for rule_id, rule in kept.rules(registry).items()}
    return jsonify(firing=firing, history=history, rules=rules)


@blueprint.get("/rules/<rule_id>")
def rule(rule_id: str) -> Response:
    return jsonify(asdict(_known(rule_id)))


@blueprint.put("/rules/<rule_id>")
def put_rule(rule_id: str) -> Response:
    if check_device_id(rule_id) == "new":
        abort(400, "new is the page of a new rule: take another id")
    return jsonify(asdict(kept.keep_rule(current_center().registry, rule_id, sent_json())))


@blueprint.delete("/rules/<rule_id>")
def delete_rule(rule_id: str) -> Response:
    _known(rule_id)
    kept.forget_rule(current_center().registry, rule_id)
    return Response(status=204)


def _known(rule_id: str) -> Any:
    return kept.rules(current_center().registry).get(rule_id) or abort(404, f"there is no rule {rule_id}")
