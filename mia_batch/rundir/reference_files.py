"""The files of an audit's references: whose weights, what each was trained on, and the digests of both.

Models that are trained for the audit have a place before they are there: what is not trained has no digest yet. The
stage `references` takes the digests when it starts, and puts them into run.json, so that they are of what it runs.
"""

from __future__ import annotations

from pathlib import Path

from mia_batch.files import Between, sha256
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.shadows import ShadowPaths, read_record, recorded_plan
from mia_batch.settings.schema import ReferencesConfig

GIVEN, PLAN = "references.inclusion", "references.shadows"  # what says which was trained on which sample


def recorded_references(manifest: Manifest) -> ReferencesConfig:
    """The references of a run.json. Nothing is checked: its paths are whole, and its globs have become files."""
    section = dict(manifest.config["references"])
    paths = {key: Path(section[key]) for key in ("inclusion", "shadows", "store") if section.get(key)}
    weights = tuple(Path(file) for file in section.get("checkpoints") or ()) or None
    return ReferencesConfig.model_construct(**section | paths | {"checkpoints": weights})


def reference_weights(references: ReferencesConfig | None) -> dict[str, Path]:
    """The checkpoints by field, those too that are still to be trained."""
    if references is None:
        return {}
    if references.shadows is None:
        return {field: file for field, file in references.files().items() if field != GIVEN}
    paths = ShadowPaths(references.shadows)
    return {f"{PLAN}[{i}]": paths.checkpoint(i) for i in range(references.n_references)}


def inclusion_file(references: ReferencesConfig) -> tuple[str, Path]:
    """The field and the file of what each was trained on."""
    if references.shadows is None:
        return GIVEN, references.inclusion or Path()
    return PLAN, ShadowPaths(references.shadows).plan


def reference_digests(references: ReferencesConfig | None, between: Between = None) -> dict[str, str]:
    """SHA-256 by field, of what is there: a model that is still to be trained has none.

    Args:
        references: of the configuration.
        between: called between blocks of a file.

    Raises:
        InputError: a file cannot be read, or is no plan.
    """
    if references is None:
        return {}
    planned = references.shadows is not None
    weights = {field: file for field, file in reference_weights(references).items() if not planned or file.exists()}
    found = {field: sha256(file, between) for field, file in weights.items()}
    inclusion = inclusion_digest(references)
    return found | ({inclusion_file(references)[0]: inclusion} if inclusion else {})


def inclusion_digest(references: ReferencesConfig) -> str | None:
    """SHA-256 of what each was trained on, of a plan that of its first K models; None where nothing is planned yet."""
    file = inclusion_file(references)[1]
    if references.shadows is None:
        return sha256(file)
    paths = ShadowPaths(references.shadows)
    record = read_record(paths)
    if record is None or record["count"] < references.n_references:
        return None
    return recorded_plan(paths, record).first(references.n_references).digest()
