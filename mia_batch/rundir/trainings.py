"""Which training run each audited checkpoint is of, and which of them came first: by steps and times, never by text."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from mia_batch.rundir.manifest import CheckpointOrigin, Manifest

MINDSPORE = re.compile(r"(.*)-(\d+)_(\d+)(?:_breakpoint)?")  # what its ModelCheckpoint writes: prefix-epoch_step
NAMED = re.compile(r"(?<![A-Za-z])(?:epochs?|ep|(?:global_?)?steps?|iter(?:ation)?s?|checkpoint)[-_= ]?(\d+)", re.I)
FRACTION = re.compile(r"\d+\.\d+")  # a loss or an accuracy, as in epoch=9-loss=0.21
DATE = re.compile(r"(?<!\d)(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])")
LAST = re.compile(r"(.*?)(\d+)(\D*)")
NEVER = -math.inf
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Audited:
    """A checkpoint that was audited.

    Attributes:
        run: name of the run directory.
        path: the checkpoint, as the configuration named it.
        sha256: of it.
        identity: of its training, as `training_run_identity` has it.
        created: when the run was set up, ISO 8601.
        origin: when the checkpoint was made.
    """

    run: str
    path: Path
    sha256: str
    identity: Mapping[str, Any]
    created: str
    origin: CheckpointOrigin

    @cached_property
    def name(self) -> Name:
        """What its name tells."""
        return name_of(self.path)

    @cached_property
    def age(self) -> tuple[Any, ...]:
        """Older ones are smaller: by the file's last change, else by the run's creation; then by that and the run."""
        created = seconds(self.created)
        changed = seconds(self.origin.modified) if self.origin.modified else created
        return changed, created, [(text, int(n or -1)) for text, n in re.findall(r"(\D*)(\d*)", self.run)], self.run


@dataclass(frozen=True)
class Name:
    """What the name of a checkpoint tells.

    Attributes:
        like: folder and name, with * for the numbers of the step: equal for the checkpoints of one training.
        step: such as (epoch, step); empty where the name has no number.
        sure: whether the name says that it is one; else it is any number, such as that of vgg16.ckpt.
    """

    like: str
    step: Numbers = ()
    sure: bool = False


@dataclass(frozen=True)
class Training:
    """The audits of one training run.

    Attributes:
        id: eight hex digits of what tells it from others.
        like: folder and name of its checkpoints, * for the step; empty where their names do not tell it.
        identity: of its configuration and data.
        audits: oldest first, each with its step, empty where nothing tells it.
    """

    id: str
    like: str
    identity: Mapping[str, Any]
    audits: tuple[tuple[Audited, Numbers], ...]


def audited_file(manifest: Manifest) -> tuple[Path, str]:
    """The checkpoint and its SHA-256; where outputs were imported and none is named, their first file's."""
    if "model" in manifest.config:
        return Path(manifest.config["model"]["checkpoint"]), manifest.digests["model.checkpoint"]
    field = next(field for field in manifest.digests if field.startswith("data.files"))
    files = manifest.config["data"]["files"]
    for key in field.split(".")[2:]:
        files = files[key]
    return Path(files), manifest.digests[field]


def audited_content(manifest: Manifest) -> tuple[str, ...]:
    """What tells a checkpoint, or its imported outputs, from others."""
    files = (digest for field, digest in manifest.digests.items() if field.startswith("data.files"))
    return (audited_file(manifest)[1], *files)


def audited_by(run: str, manifest: Manifest, identity: Mapping[str, Any]) -> Audited:
    """What a run audits.

    Args:
        run: name of the run directory.
        manifest: of it.
        identity: what the audits of one training have in common.

    Raises:
        ValueError: the checkpoint's name has a number of thousands of digits.
    """
    checkpoint, digest = audited_file(manifest)
    found = Audited(run, checkpoint, digest, identity, manifest.created, manifest.checkpoint)
    found.name, found.age  # noqa: B018  (what they cannot be made of is wrong with this run alone)
    return found


def seconds(iso: str) -> float:
    """A time in seconds since 1970, UTC where it does not say; minus infinity for what is no time."""
    try:
        time = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        return NEVER
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()


def name_of(path: Path) -> Name:
    """What a checkpoint's name tells, or that of its folder as in step-500/model.ckpt."""
    folder, stem, file = path.parent, path.stem, path.suffix
    if found := MINDSPORE.fullmatch(stem):
        return Name(f"{folder}/{found[1]}-*_*{file}", (int(found[2]), int(found[3])), sure=True)
    if steps := NAMED.findall(stem):
        like = FRACTION.sub("*", NAMED.sub(lambda found: found[0].replace(found[1], "*"), stem))
        return Name(f"{folder}/{like}{file}", tuple(map(int, steps)), sure=True)
    if found := NAMED.fullmatch(folder.name):
        steps_of = folder.with_name(folder.name.replace(found[1], "*"))
        return Name(f"{steps_of}/{path.name}", (int(found[1]),), sure=True)
    if not DATE.search(stem) and (found := LAST.fullmatch(stem)):
        return Name(f"{folder}/{found[1]}*{found[3]}{file}", (int(found[2]),))
    return Name("")


def trainings(audits: Iterable[Audited]) -> list[Training]:
    """The audits by training run, the one with the newest checkpoint last.

    Trainings differ in configuration or data. Steps are compared only between checkpoints of one folder whose names
    differ in nothing else, so that each such series is a training too; a name without a step goes with the others if
    they are one series. Where a step comes again with other bytes, later in time, another training has begun.
    """
    by_identity: dict[str, list[Audited]] = defaultdict(list)
    for audit in audits:
        by_identity[json.dumps(audit.identity, sort_keys=True)].append(audit)
    found = []
    for key, group in by_identity.items():
        for like, series in _series(sorted(group, key=lambda audit: audit.age)).items():
            for number, one in enumerate(_repetitions(series, like)):
                digest = hashlib.sha256(json.dumps([key, like, number]).encode()).hexdigest()
                found.append(Training(digest[:8], like, one[0].identity, _ordered(one, like)))
    return sorted(found, key=lambda training: (max(audit.age for audit, _ in training.audits), training.id))


def _series(group: Sequence[Audited]) -> dict[str, list[Audited]]:
    """Audits whose checkpoints' names differ in the step alone; under "" those whose names tell none."""
    steps: dict[str, set[Numbers]] = defaultdict(set)
    for audit in group:
        steps[audit.name.like].add(audit.name.step)
    likes = {each.name.like for each in group if each.name.step and (each.name.sure or len(steps[each.name.like]) > 1)}
    rest = next(iter(likes)) if len(likes) == 1 else ""
    series: dict[str, list[Audited]] = defaultdict(list)
    for audit in group:
        series[audit.name.like if audit.name.like in likes else rest].append(audit)
    return series


def _repetitions(series: Sequence[Audited], like: str) -> list[list[Audited]]:
    """A series, oldest first, cut where a step comes again with other bytes."""
    cut: list[list[Audited]] = [[]]
    seen: dict[Numbers, str] = {}
    for audit in series:
        if audit.name.like == like != "":
            if seen.get(audit.name.step, audit.sha256) != audit.sha256:
                cut.append([])
                seen = {}
            seen[audit.name.step] = audit.sha256
        cut[-1].append(audit)
    return cut


def _ordered(series: Sequence[Audited], like: str) -> tuple[tuple[Audited, Numbers], ...]:
    """By step, from the files if all have it, else from the names; one without a step after those that are older."""
    told = [name for name in ("epoch_num", "step_num") if all(getattr(a.origin, name) is not None for a in series)]

    def step(audit: Audited) -> Numbers:
        if told:
            return tuple(getattr(audit.origin, name) for name in told)
        return audit.name.step if audit.name.like == like else ()

    steps = [(audit.age, step(audit)) for audit in series if step(audit)]

    def place(audit: Audited) -> tuple[Any, ...]:
        own = step(audit)
        return own or max((each for age, each in steps if age <= audit.age), default=()), not own, audit.age

    return tuple((audit, step(audit)) for audit in sorted(series, key=place))
