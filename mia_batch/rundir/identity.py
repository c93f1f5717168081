"""What must be equal for features, for an attack's result and for a verdict to be the same: an identity for each.

An identity is a flat mapping. A key that has the value that its absence means is left out: results of a version that
did not have the key yet keep their digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic_core import to_jsonable_python

from mia_batch.attacks.base import BLIND, REFERENCE_COLUMNS, STACK, TRAJECTORY_COLUMNS
from mia_batch.errors import InputError
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.outputs import OutputsConfig
from mia_batch.settings.schema import SECTIONS, MethodConfig, SampleBlock, Section

# A run that moved to another mount is still the same run: files count by their digests, not by their names. Where the
# search is computed, and in how much memory, changes no number, so that a run can go on elsewhere.
NOT_IDENTITY = frozenset(
    ("model.checkpoint", "model.rename", "data.path", "attack.memory_gib", "attack.backend", "attack.scheduler",
     "attack.trajectory", "references.checkpoints", "references.inclusion", "references.shadows", "references.store",
     "references.group", "report.group")
)
NAMED_FILE = re.compile(
    r"data\.(((non)?members|canaries)\[\d+\]\.indices|group\..+|files(\..+)?)|report\.slices(_by)?\.\w+\..+"
)
# What only the verdict reads of a section that rows depend on.
OF_VERDICT = {"data": ("max_duplicates", "nonmembers_used_for", "randomised", "canaries")}
VERDICT_FILES = tuple(f"{section}.{key}[" for section, keys in OF_VERDICT.items() for key in keys)
# What versions did that did not have a key yet, where that is not its default: {"data.some_key": value}. A default that
# changes needs an entry here too, or results of the old default would be taken for results of the new one.
BEFORE: dict[str, Any] = {
    "gate.rule": "all_above", "gate.threshold": 0.6, "gate.metrics": ["accuracy", "precision", "recall"],
    "gate.bound": "point", "attack.eval": "holdout", "attack.max_rows": None, "attack.features": "logits_loss",
    "data.max_duplicates": 1.0,
}  # fmt: skip
CONTENT = "SHA-256 of "
TRAJECTORY = "attack.trajectory["
# Columns of samples to which earlier checkpoints add something.
ON_TRAJECTORY = ("features", STACK, *TRAJECTORY_COLUMNS)
NOT_TRAINING = frozenset((f"{CONTENT}model.checkpoint", "train.checkpoint_every"))
# Of features.h5, what is of the samples or the weights and not of the network and how it is run.
OF_SAMPLES = re.compile(
    rf"({CONTENT})?(data\.(members|nonmembers|canaries|group|label|path).*|.* in data\.path|model\.checkpoint)"
)
# Of features.h5, what says who of the samples is a member of the target, and of which weights.
OF_TARGET = re.compile(
    rf"({CONTENT})?(data\.(members|nonmembers|canaries|group|augment_members).*|model\.checkpoint)"
)
# Of a training, what says who of the samples is a member, and of imported outputs which they are.
OF_CHECKPOINT = re.compile(rf"({CONTENT})?data\.(members|nonmembers|canaries|group|files)([.\[].*)?")
NOTHING = object()


def features_identity(manifest: Manifest) -> dict[str, Any]:
    """Of features.h5: sections model, data and extract, and the content of the files that they name."""
    return _of_sections(manifest, "model", "data", "extract")


def attack_identity(manifest: Manifest, method: str) -> dict[str, Any]:
    """Of attacks/<method>.h5: the features, the section `attack` and, of its methods, this one, if it is configured.

    Of an attack that needs references also which they are, and what each was trained on; of one that earlier
    checkpoints tell something, what their audits hold.

    Raises:
        KeyError: the configuration has no such attack.
    """
    return features_identity(manifest) | _settings(manifest, method)


def verdict_identity(manifest: Manifest) -> dict[str, Any]:
    """Of summary.json: the features, every attack, the sections that only it depends on, and `OF_VERDICT`."""
    found = _of_sections(manifest, "model", "data", "extract", "gate", "report", "audit", "dossier", rows=False)
    return found | attacks_identity(manifest) | _trajectory(manifest)  # which records.csv shows


def attacks_identity(manifest: Manifest) -> dict[str, Any]:
    """Of what the attacks are, on whatever features: two audits whose attacks differ are not to be compared."""
    return {key: value for method in manifest.methods for key, value in _settings(manifest, method).items()}


def training_run_identity(manifest: Manifest) -> dict[str, Any]:
    """Of the training that the checkpoint is of: the features but for its bytes, and the section `train`."""
    found = _of_sections(manifest, "model", "data", "extract", "train")
    return {key: value for key, value in found.items() if key not in NOT_TRAINING}


def trajectory_identity(manifest: Manifest) -> dict[str, Any]:
    """Of the training, whoever its members are: between two of its checkpoints samples may arrive."""
    return {key: value for key, value in training_run_identity(manifest).items() if not OF_CHECKPOINT.fullmatch(key)}


def network_identity(manifest: Manifest) -> dict[str, Any]:
    """Of how fast rows are extracted: the network, the source, the preprocessing, the batches; not which samples."""
    return {key: value for key, value in features_identity(manifest).items() if not OF_SAMPLES.fullmatch(key)}


def reference_digest(manifest: Manifest, field: str, samples: str) -> str:
    """Hex digest of what the outputs of some weights are, whoever the members of the target are: their key in a store.

    Args:
        manifest: of a run with the section `references`.
        field: of its digests, whose weights they are.
        samples: digest of the samples, in an order that no target decides.
    """
    found = {key: value for key, value in features_identity(manifest).items() if not OF_TARGET.fullmatch(key)}
    return _digest(found | _of_answers(manifest) | {"weights": manifest.digests[field], "samples": samples})


def features_digest(manifest: Manifest) -> str:
    """Hex digest of `features_identity`."""
    return _digest(features_identity(manifest))


def attack_digest(manifest: Manifest, method: str) -> str:
    """Hex digest of `attack_identity`."""
    return _digest(attack_identity(manifest, method))


def data_digest(manifest: Manifest) -> str:
    """Hex digest of what a run's samples are: the same for runs that differ in model, attacks or gate alone."""
    return _digest(_of_sections(manifest, "data"))


@dataclass(frozen=True)
class Origin:
    """What a file was made from, as it says itself.

    Attributes:
        manifest: config and digests of then.
        run: the digest that everything of this run carries, where the version before has made it.
    """

    manifest: Manifest
    run: str | None

    @staticmethod
    def of(attrs: Mapping[str, Any]) -> Origin:
        """Read the attributes of features.h5, or the provenance in summary.json."""
        config, digests = attrs["config"], attrs["digests"]
        manifest = Manifest(created="", config_file="", config=config, digests=digests, versions={})
        return Origin(manifest, attrs.get("run"))


def attack_marks(manifest: Manifest, method: str, origin: Origin | None) -> tuple[str, ...]:
    """What results and journals of this attack carry: its digest, or what the version before has put there.

    Args:
        manifest: in force.
        method: one of its attacks.
        origin: of the features that are there.
    """
    own = attack_digest(manifest, method)
    if origin is None or origin.run is None or method not in origin.manifest.methods:
        return (own,)
    return (own, origin.run) if attack_digest(origin.manifest, method) == own else (own,)


def mark_of(found: Mapping[str, Any]) -> str | None:
    """The mark in a result's provenance, or in a journal's first line: of this version, or of the one before."""
    return found.get("identity", found.get("run"))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One phrase for each key that is not the same; a key that one side lacks is what its absence means."""
    keys = [*there, *(key for key in here if key not in there)]
    pairs = [(key, there.get(key, _absent(key)), here.get(key, _absent(key))) for key in keys]
    return [_phrase(key, was, now) for key, was, now in pairs if not _same(was, now)]


def refuse_differences(paths: RunPaths, found: list[str]) -> None:
    """Raise an InputError that lists the differences, if there are any."""
    if found:
        advice = "; choose another --out, or remove that directory to audit anew"
        raise InputError([f"{paths.root}: --out: holds another run: {phrase}{advice}" for phrase in found])


def _settings(manifest: Manifest, method: str) -> dict[str, Any]:
    section = manifest.config.get("attack", {})
    grids = {each["method"]: each for each in section.get("methods", [])}
    own = {key: value for key, value in section.items() if key != "methods"}
    own |= {} if method == BLIND else {f"methods[{method}]": grids[method]}
    found = _identity({"attack": own})
    if "references" in manifest.config and _needs(method, REFERENCE_COLUMNS):
        found |= _references(manifest)
    if section.get("trajectory") and _needs(method, ON_TRAJECTORY):
        found |= _trajectory(manifest)
    return found


def _needs(method: str, columns: Collection[str]) -> bool:
    if method == BLIND:
        return False
    from mia_batch.attacks.registry import ATTACKS  # scikit-learn: only where there are references, or earlier audits

    return method in ATTACKS and not ATTACKS[method].needs.isdisjoint(columns)


def _trajectory(manifest: Manifest) -> dict[str, Any]:
    """What the audits of earlier checkpoints hold; in their order, which is that of training."""
    return {f"{CONTENT}{field}": digest for field, digest in manifest.digests.items() if field.startswith(TRAJECTORY)}


def earlier_digest(rows: Manifest, manifest: Manifest) -> str:
    """Hex digest of what a later audit may read of this one.

    Args:
        rows: what its features.h5 was made from.
        manifest: its run.json, which names its references.
    """
    return _digest(features_identity(rows) | (_references(manifest) if "references" in manifest.config else {}))


def _references(manifest: Manifest) -> dict[str, Any]:
    contents = {field: digest for field, digest in manifest.digests.items() if field.startswith("references.")}
    return _of_answers(manifest) | {f"{CONTENT}{field}": digest for field, digest in contents.items()}


def _of_answers(manifest: Manifest) -> dict[str, Any]:
    """How references are asked."""
    section = manifest.config["references"]
    return _identity({"references": {name: section[name] for name in ("logits", "queries")}})


def _of_sections(manifest: Manifest, *sections: str, rows: bool = True) -> dict[str, Any]:
    """With `rows`, without what rows do not depend on."""
    contents = {
        f"{CONTENT}{_file_of(field)}": digest
        for field, digest in manifest.digests.items()
        if re.split("[.:]", field)[0] in sections and not (rows and field.startswith(VERDICT_FILES))
    }
    config = {name: found for name in sections if (found := manifest.config.get(name))}  # versions before lack `audit`
    return _identity({name: of_rows(name, found) if rows else found for name, found in config.items()}) | contents


def of_rows(section: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A section's keys without those of `OF_VERDICT`."""
    return {key: value for key, value in config.items() if key not in OF_VERDICT.get(section, ())}


def _file_of(field: str) -> str:
    """How a file is called: `field` is "model.checkpoint", "data:train.bin", or "data:path" for a source's one file."""
    section, _, name = field.partition(":")
    return section if not name else f"{section}.path" if name == "path" else f"{name} in {section}.path"


def _identity(sections: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flatten(sections)
    for key in ("model.factory", "model.output", "data.source", "data.preprocess"):
        location, _, function = str(flat.get(key)).rpartition(":")
        if location.endswith(".py"):
            flat[key] = f"*.py:{function}"
    return {
        key: value for key, value in flat.items()
        if key not in NOT_IDENTITY and not NAMED_FILE.fullmatch(key) and not _same(value, _absent(key))
    }


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _absent(key: str) -> Any:
    """What it means that a manifest has no such key."""
    plain = re.sub(r"\[[^\]]*\]", "", key) if "[" in key else key
    return BEFORE.get(plain, _defaults().get(plain, NOTHING))


@cache
def _defaults() -> dict[str, Any]:
    blocks = {f"data.{name}": SampleBlock for name in ("members", "nonmembers", "canaries")}
    sections: dict[str, type[Section]] = {**SECTIONS, **blocks, "attack.methods": MethodConfig}
    found: dict[str, Any] = {}
    of_outputs: tuple[str, type[Section]] = ("data", OutputsConfig)
    for where, section in (of_outputs, *sections.items()):
        for name, field in section.model_fields.items():
            if not field.is_required() and not field.exclude:
                default = to_jsonable_python(field.get_default(call_default_factory=True))
                found |= _flatten(default, f"{where}.{name}")
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON, where 1, 1.0 and true are not."""
    if one is NOTHING or other is NOTHING:
        return one is other
    if not isinstance(one, list | dict) or not isinstance(other, list | dict):
        return type(one) is type(other) and bool(one == other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = [(f"{prefix}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {prefix: value} if prefix else {}
    return {name: leaf for key, item in items for name, leaf in _flatten(item, key).items()}


def _phrase(key: str, was: Any, now: Any) -> str:
    name = key.removeprefix(CONTENT)
    if _is_digest(was) and _is_digest(now):
        return f"the content of {name} has changed"
    if key.startswith(CONTENT):
        return f"{name} is read now and was not" if was is NOTHING else f"{name} was read and is not now"
    return f"{key} was {_brief(was)} and is now {_brief(now)}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _brief(value: Any) -> str:
    if value is NOTHING or _is_digest(value):
        return "nothing" if value is NOTHING else "a file"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
