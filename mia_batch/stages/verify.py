"""Whether the files of a run are whole, and belong together: every one is read, none is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.features import Features, is_sealed, read_features, rows_written
from mia_batch.rundir.identity import mark_of
from mia_batch.rundir.manifest import Manifest, known_manifest
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_store import StoredSamples, check_outputs, reference_paths
from mia_batch.rundir.results import read_attack
from mia_batch.rundir.seal import read_seal
from mia_batch.rundir.state import accepted_marks

WHOLE, OLD, PARTIAL, STALE, BAD = "whole", "old", "partial", "stale", "bad"
NO_DIGESTS = "of a version that wrote no digests: its form is right"


@dataclass(frozen=True)
class Checked:
    """What was found of a file.

    Attributes:
        path: of the file.
        state: "whole"; "old", of a version that wrote no digests, so that only its form could be checked; "partial",
            still to be filled; "stale", of other settings than the run's; "bad".
        detail: in words; of a bad one what is wrong.
    """

    path: Path
    state: str
    detail: str


def verify_run(paths: RunPaths) -> Iterator[Checked]:
    """Check what there is of a run, file by file.

    Raises:
        InputError: there is no run that can be read.
    """
    manifest = known_manifest(paths)
    yield Checked(paths.manifest, WHOLE, f"{len(manifest.methods)} attacks")
    features: Features | None = None
    if paths.features.exists():
        yield _looked_at(paths.features, lambda: _features(paths.features))
        features = _readable(paths)
    for file in sorted(paths.attacks.glob("*.h5")):
        yield _looked_at(file, lambda file=file: _attack(file, paths, manifest, features))  # type: ignore[misc]
    if paths.summary_json.exists():
        yield from _verdict(paths, manifest)
    if features and "references" in manifest.config:
        yield from _references(manifest, features)


def _looked_at(path: Path, look: Callable[[], tuple[str, str]]) -> Checked:
    try:
        return Checked(path, *look())
    except InputError as error:
        return Checked(path, BAD, "; ".join(error.problems).removeprefix(f"{path}: "))


def _readable(paths: RunPaths) -> Features | None:
    """The rows, if they are complete; what is wrong with them was said before."""
    try:
        return read_features(paths.features)
    except InputError:
        return None


def _features(path: Path) -> tuple[str, str]:
    if is_sealed(path):
        found = read_features(path)
        return _vouched(path, f"{len(found.member)} rows")
    done, good, total = rows_written(path)
    if good < done:
        return BAD, f"{done - good} of {done} rows must be what was written; extract computes them again"
    return PARTIAL, f"{done} of {total} rows"


def _vouched(path: Path, detail: str) -> tuple[str, str]:
    return (WHOLE, detail) if read_seal(path) else (OLD, f"{detail}; {NO_DIGESTS}")


def _attack(path: Path, paths: RunPaths, manifest: Manifest, features: Features | None) -> tuple[str, str]:
    result = read_attack(path)
    if features and not np.array_equal(result.member, features.member):
        raise InputError(f"member: must be that of {paths.features.name}, got another")
    if result.method != path.stem:
        raise InputError(f"method: must be {path.stem}, got {result.method}")
    if mark_of(result.provenance) not in accepted_marks(paths, manifest).get(path.stem, ()):
        return STALE, "of other features or settings than the run's"
    scored = f"{int(result.evaluated.sum())} of {len(result.member)} rows scored"
    return _vouched(path, f"{scored}; not evaluable: {result.reason}" if result.reason else scored)


def _verdict(paths: RunPaths, manifest: Manifest) -> Iterator[Checked]:
    summary: Summary | None = None

    def look() -> tuple[str, str]:
        nonlocal summary
        summary = read_summary(paths.summary_json)
        return (WHOLE if summary.files else OLD), summary.verdict.outcome

    yield _looked_at(paths.summary_json, look)
    for file in (paths.summary_csv, paths.records, paths.page):
        if summary and (file.exists() or file.name in summary.files):
            wanted = summary.files.get(file.name)
            yield _looked_at(file, lambda file=file, wanted=wanted: _beside(file, wanted))  # type: ignore[misc]
    of_attacks = [paths.attack(name) for name in manifest.methods if summary and name in summary.methods]
    for file in (paths.features, *of_attacks) if summary else ():
        if not file.exists():
            yield Checked(file, BAD, "must be there, as its verdict is; run makes it again")


def _beside(file: Path, wanted: str | None) -> tuple[str, str]:
    found = sha256(file)
    if wanted is None:
        return OLD, "of a version that wrote no digests"
    if found != wanted:
        raise InputError("must be as it was written with summary.json, got another; run reduce again")
    return WHOLE, f"{file.stat().st_size} bytes"


def _references(manifest: Manifest, features: Features) -> Iterator[Checked]:
    label = features.label if features.label is not None else np.zeros(len(features.member), np.int32)
    samples = StoredSamples(features.split, features.sample_index, label)
    for field, paths in reference_paths(manifest, samples).items():
        if paths.outputs.exists():
            look = _reference(field, paths, samples, features)
            yield _looked_at(paths.outputs, look)


def _reference(
    field: str, paths: ReferencePaths, samples: StoredSamples, features: Features
) -> Callable[[], tuple[str, str]]:
    def look() -> tuple[str, str]:
        check_outputs(paths, samples, features.content)
        return _vouched(paths.outputs, field)

    return look
