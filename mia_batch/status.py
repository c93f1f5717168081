"""`mia-batch status DIR`: what of a run is done, running or missing."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import Any

from mia_batch.entry import OK
from mia_batch.errors import InputError
from mia_batch.paths import RunPaths
from mia_batch.provenance import read_manifest
from mia_batch.store import features_in_use, features_progress


@dataclass(frozen=True)
class StageStatus:
    """One stage, or one attack: `state` is done, running, partial or missing."""

    stage: str
    state: str
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR."""
    parser.add_argument("dir", metavar="DIR", help="run directory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the state of every stage."""
    paths = RunPaths(args.dir)
    manifest = read_manifest(paths)
    if manifest is None:
        raise InputError(f"{paths.root}: must be a run directory, got none with {paths.manifest.name}")
    stages = run_status(paths, manifest)
    if args.json:
        print(json.dumps({"dir": str(paths.root), "stages": [asdict(stage) for stage in stages]}))
    else:
        print("\n".join(f"{stage.stage:<12} {stage.state:<8} {stage.detail}".rstrip() for stage in stages))
    return OK


def run_status(paths: RunPaths, manifest: dict[str, Any]) -> list[StageStatus]:
    """The stages in order, the attacks one by one."""
    methods = [method["method"] for method in manifest["config"]["attack"]["methods"]]
    return [_extract(paths), *(_attack(paths, name) for name in methods), _reduce(paths)]


def _extract(paths: RunPaths) -> StageStatus:
    rows = features_progress(paths.features)
    if rows is None:
        return StageStatus("extract", "missing", "no rows yet")
    done, total = rows
    state = "done" if done == total else "running" if features_in_use(paths.features) else "partial"
    return StageStatus("extract", state, f"{done} of {total} rows")


def _attack(paths: RunPaths, name: str) -> StageStatus:
    if paths.attack(name).exists():
        return StageStatus(f"attack {name}", "done", paths.attack(name).name)
    if paths.journal(name).exists():
        return StageStatus(f"attack {name}", "partial", "some of its fits are done")
    return StageStatus(f"attack {name}", "missing", "")


def _reduce(paths: RunPaths) -> StageStatus:
    if not paths.summary_json.exists():
        return StageStatus("reduce", "missing", "")
    verdict = json.loads(paths.summary_json.read_text(encoding="utf-8"))["verdict"]
    return StageStatus("reduce", "done", "leak" if verdict["leak"] else "no leak found")
