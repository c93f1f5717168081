"""`mia-batch show DIR`: the result of a finished audit again: for a terminal, a pull request, a model card, a slide."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mia_batch.errors import InputError, did_you_mean
from mia_batch.process.exit_codes import BY_OUTCOME
from mia_batch.report.attack_text import attack_text
from mia_batch.report.markdown import model_card_text, pull_request_text
from mia_batch.report.media import terminal
from mia_batch.report.summary import Summary
from mia_batch.report.tables import has_colours, terminal_width
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.verdicts import read_verdict

EXAMPLES = (
    "mia-batch show runs/one",
    "mia-batch show runs/one --attack lr",
    "mia-batch show runs/one --markdown > comment.md   # for a pull request",
    "mia-batch show runs/one --model-card > card.md",
    "mia-batch show runs/one --figures figures         # PNG and SVG",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, and what to show of it."""
    parser.add_argument("dir", metavar="DIR", help="run directory of a finished audit")
    parser.add_argument("--attack", metavar="NAME", help="everything of one attack instead of the table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print summary.json, with --attack the part of that")
    form.add_argument("--markdown", action="store_true", help="print a comment for a pull request")
    form.add_argument("--model-card", action="store_true", help="print a section of a model card (Markdown)")
    form.add_argument("--figures", metavar="FOLDER", type=Path, help="write figures as PNG and SVG; print their names")


def run(args: argparse.Namespace) -> int:
    """Print the result; the exit code is the verdict."""
    paths = RunPaths(args.dir)
    summary = read_verdict(paths)[1]
    if args.attack is not None and args.attack not in summary.methods:
        near = did_you_mean(args.attack, summary.methods)
        raise InputError(f"--attack: must be one of {', '.join(summary.methods)}, got {args.attack}{near}")
    if args.attack is not None and (args.markdown or args.model_card or args.figures):
        raise InputError("--attack: must stand alone or beside --json")
    print(_text(args, paths, summary), flush=True)
    return BY_OUTCOME[summary.verdict.outcome]


def _text(args: argparse.Namespace, paths: RunPaths, summary: Summary) -> str:
    if args.markdown or args.model_card:
        return (pull_request_text if args.markdown else model_card_text)(summary).removesuffix("\n")
    if args.figures:
        from mia_batch.stages.figures import draw_figures  # it takes a second

        return "\n".join(terminal(str(file)) for file in draw_figures(paths, summary, args.figures))
    if args.json:
        return _json(paths, summary, args.attack)
    if args.attack is not None:
        return attack_text(summary, args.attack, width=terminal_width())
    from mia_batch.report.text import full_text

    shown = summary.provenance.get("config", {}).get("report", {}).get("metrics", [])
    return full_text(summary, shown, width=terminal_width() or 80, colours=has_colours())


def _json(paths: RunPaths, summary: Summary, attack: str | None) -> str:
    if attack is None:
        return paths.summary_json.read_text(encoding="utf-8").removesuffix("\n")
    verdict = summary.verdict.methods.get(attack)
    found = summary.methods[attack].model_dump(mode="json")
    judged = verdict and {name: getattr(verdict, name) for name in ("leak", "above", "not_above", "undefined")}
    rules = [vars(rule) for rule in verdict.rules] if verdict else []
    return json.dumps({"attack": attack, **found, "verdict": judged and {**judged, "rules": rules}}, indent=1)
