"""`iot-agent doctor`: the checks of the whole chain, for people or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict

import click

from agent.cli.options import Context, common_options
from agent.doctor.finding import Finding
from agent.util.errors import EXIT_FAILED

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all findings.")
@common_options
def doctor(context: Context, as_json: bool) -> None:
    """Check the whole chain, from the configuration to the bucket, and say what to do. Changes nothing.

    Exit 1 if any check failed. Works while the agent runs; what another user may not see is said.
    """
    from agent.doctor.doctor import examine  # noqa: PLC0415 - the whole chain's modules, only here
    from agent.doctor.finding import Patient  # noqa: PLC0415

    findings = []
    for finding in examine(Patient(context.config, context.state_dir)):
        findings.append(finding)
        if not as_json:
            _show(finding)
    bad = any(finding.verdict == "failed" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not bad, "findings": [asdict(finding) for finding in findings]}, indent=1))
    if bad:
        raise click.exceptions.Exit(EXIT_FAILED)


def _show(finding: Finding) -> None:
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    text = f"{finding.check}: {finding.seen}"
    lines = textwrap.wrap(text, width - 10, break_long_words=False, break_on_hyphens=False)
    click.echo(f"{click.style(f'{finding.verdict:8}', COLOURS[finding.verdict])} {lines[0]}")
    for line in lines[1:]:
        click.echo(f"{'':9}{line}")
    if finding.remedy:
        for number, line in enumerate(textwrap.wrap(finding.remedy, width - 12, break_on_hyphens=False)):
            click.echo(f"{'':9}{'→ ' if number == 0 else '  '}{line}")
