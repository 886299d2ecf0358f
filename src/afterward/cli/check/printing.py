"""A report as lines that editors understand, and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict

from afterward.cli.check.finding import Report
from afterward.cli.telling import say
from afterward.sizes import many


def print_report(report: Report, *, verbose: bool, as_json: bool) -> None:
    """The findings to standard output, and how many there are to standard error. `verbose`: what cannot be told too."""
    shown = sorted([*report.findings, *report.untold]) if verbose else report.findings
    if as_json:
        print(json.dumps([asdict(finding) for finding in shown], indent=2))
    else:
        for finding in shown:
            print(finding)
    say(summary(report))


def summary(report: Report) -> str:
    """One line for the end."""
    places = len({finding.path for finding in report.findings})
    found = f"{many(len(report.findings), 'finding')} in {places} of " if report.findings else "no findings in "
    untold = f"; {many(len(report.untold), 'place')} of which it cannot be told (--verbose)" if report.untold else ""
    return f"{found}{many(report.files, 'file')}{untold}"
