"""What the features, an attack and a verdict depend on: each on its own keys, and on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from rundirs import METHODS, a_config, a_manifest

from mia_batch.rundir import identity
from mia_batch.rundir.identity import (
    Origin,
    attack_digest,
    attack_identity,
    attack_marks,
    data_digest,
    differences,
    features_digest,
    features_identity,
    verdict_identity,
)
from mia_batch.rundir.manifest import Manifest

PLACES = ("model.checkpoint", "data.path", "data.members.0.indices", "data.nonmembers.0.indices")
HOW = ("attack.memory_gib", "attack.backend", "attack.scheduler")


def keys(value: Any, prefix: str = "") -> list[str]:
    """The dotted names of all values."""
    if isinstance(value, dict) and value:
        items = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = list(enumerate(value))
    else:
        return [prefix]
    return [name for key, item in items for name in keys(item, f"{prefix}.{key}".lstrip("."))]


ALL = keys(a_config())


def of(*sections: str) -> list[str]:
    return [key for key in ALL if key.partition(".")[0] in sections and key not in PLACES + HOW]


def changed(key: str) -> Manifest:
    return a_manifest(**{key: {"other": 1} if key.endswith("kwargs") else "another value"})


def digests(manifest: Manifest) -> dict[str, str]:
    return {"features": features_digest(manifest), **{name: attack_digest(manifest, name) for name in METHODS}}


BASE = digests(a_manifest())


@pytest.mark.parametrize("key", of("model", "data", "extract"))
def test_the_features_depend_on_every_key_of_their_sections(key: str) -> None:
    assert all(found != BASE[name] for name, found in digests(changed(key)).items())


@pytest.mark.parametrize("field", ["model.checkpoint", "data:train.bin", "model.factory", "data.members[0].indices"])
def test_the_features_depend_on_the_content_of_every_file(field: str) -> None:
    assert all(found != BASE[name] for name, found in digests(a_manifest(**{f"digests.{field}": "9" * 64})).items())


@pytest.mark.parametrize("key", [*of("gate", "report", "train"), *PLACES, *HOW])
def test_on_gate_report_training_names_and_places_depends_nothing(key: str) -> None:
    assert digests(changed(key)) == BASE


@pytest.mark.parametrize("key", [key for key in of("attack") if ".methods." not in key])
def test_every_attack_depends_on_what_is_said_of_all_and_the_features_do_not(key: str) -> None:
    found = digests(changed(key))
    assert {name for name in BASE if found[name] != BASE[name]} == set(METHODS)


@pytest.mark.parametrize(
    ("key", "attack"), [("attack.methods.0.params.C", "lr"), ("attack.methods.1.params.n_neighbors", "knn")]
)
def test_a_grid_is_of_its_attack_alone(key: str, attack: str) -> None:
    found = digests(a_manifest(**{key: [3]}))
    assert [name for name in BASE if found[name] != BASE[name]] == [attack]


def test_order_and_number_of_attacks_change_none_of_them() -> None:
    lr, knn = a_config()["attack"]["methods"]
    assert digests(a_manifest(**{"attack.methods": [knn, lr]})) == BASE
    more = a_manifest(**{"attack.methods": [{"method": "rf", "params": {}}, knn, lr]})
    assert digests(more) == BASE
    with pytest.raises(KeyError, match="rf"):
        attack_identity(a_manifest(), "rf")


@pytest.mark.parametrize("key", of("model", "data", "extract", "attack", "gate", "report"))
def test_a_verdict_depends_on_all_of_it(key: str) -> None:
    if key.endswith(".method"):
        return  # another attack
    assert differences(verdict_identity(a_manifest()), verdict_identity(changed(key)))


def test_the_data_are_the_same_for_every_model_and_attack() -> None:
    base = data_digest(a_manifest())
    assert all(data_digest(changed(key)) == base for key in of("model", "extract", "attack", "gate"))
    assert all(data_digest(changed(key)) != base for key in of("data"))
    assert data_digest(a_manifest(**{"digests.model.checkpoint": "9" * 64})) == base
    assert data_digest(a_manifest(**{"digests.data:train.bin": "9" * 64})) != base


def test_a_file_of_ones_own_counts_by_its_content_and_function() -> None:
    one = a_manifest(**{"model.factory": "/a/net.py:build", "digests.model.factory": "7" * 64})
    moved = a_manifest(**{"model.factory": "/b/other.py:build", "digests.model.factory": "7" * 64})
    other = a_manifest(**{"model.factory": "/a/net.py:build2", "digests.model.factory": "7" * 64})
    assert features_digest(one) == features_digest(moved) != features_digest(other)


def test_what_json_tells_apart_is_not_the_same() -> None:
    one, other, third = (a_manifest(**{"model.kwargs": {"width": width}}) for width in (1, 1.0, True))
    assert len({features_digest(each) for each in (one, other, third)}) == 3
    (phrase,) = differences(features_identity(one), features_identity(other))
    assert phrase == "model.kwargs.width was 1 and is now 1.0"
    named_indices, empty = (a_manifest(**{"data.kwargs": value}) for value in ({"indices": 3}, {"options": {}}))
    assert len({features_digest(each) for each in (named_indices, empty, a_manifest())}) == 3


def test_what_nonmembers_were_used_for_is_the_verdicts_alone() -> None:
    key = "data.nonmembers_used_for"
    stated, default = a_manifest(**{key: "none"}), a_manifest(**{key: "unknown"})
    assert digests(stated) == digests(default) == BASE
    assert data_digest(stated) == data_digest(a_manifest())
    verdicts = [verdict_identity(manifest) for manifest in (a_manifest(), default, stated)]
    assert verdicts[0] == verdicts[1]
    assert differences(verdicts[0], verdicts[2]) == [f"{key} was unknown and is now none"]


# --- keys that appear later ------------------------------------------------------------------------------------------


def test_a_key_that_an_old_manifest_lacks_is_what_that_version_did(monkeypatch: pytest.MonkeyPatch) -> None:
    before = features_digest(a_manifest())
    old, now = features_identity(a_manifest()), a_manifest(**{"data.made_up": "as then"})
    assert differences(old, features_identity(now)) == ["data.made_up was nothing and is now as then"]
    monkeypatch.setattr(identity, "BEFORE", identity.BEFORE | {"data.made_up": "as then", "attack.made_up": 3})
    assert differences(old, features_identity(now)) == []
    assert features_digest(now) == before
    assert attack_digest(a_manifest(**{"attack.made_up": 3}), "lr") == BASE["lr"]
    other = features_identity(a_manifest(**{"data.made_up": "otherwise"}))
    assert differences(old, other) == ["data.made_up was as then and is now otherwise"]


@pytest.mark.parametrize(
    ("key", "default"), [("data.label", "fine"), ("extract.batch_size", 64), ("data.members.0.range", None)]
)
def test_else_it_is_the_default(key: str, default: Any) -> None:
    config = a_config()
    *sections, last = key.split(".")
    target: Any = config
    for section in sections:
        target = target[int(section) if isinstance(target, list) else section]
    assert target.pop(last) == default
    old = a_manifest().model_copy(update={"config": config})
    assert digests(old) == BASE
    (phrase,) = differences(features_identity(old), features_identity(changed(key)))
    assert f"was {'null' if default is None else default} and is now another value" in phrase


def test_a_default_that_changes_needs_what_it_was_before() -> None:
    """Results keep no values that are defaults: let one change here, and add the old one to BEFORE."""
    assert {key: identity._absent(key) for key in DEFAULTS} == DEFAULTS


DEFAULTS = {
    "model.kwargs": {}, "data.path": None, "data.kwargs": {}, "data.label": "fine", "data.image_size": [32, 32],
    "data.mean": [0.4465, 0.4822, 0.4914], "data.std": [0.2010, 0.1994, 0.2023], "data.augment_members": False,
    "data.nonmembers_used_for": "unknown", "data.preprocess": "image", "data.columns": None, "data.pad": None,
    "data.pad_to": None,
    "data.members[0].num_samples": None, "data.members[0].range": None, "extract.device": "auto",
    "extract.batch_size": 64, "attack.seed": 1, "attack.eval_fraction": 0.2, "attack.cv": 3,
    "attack.features": "logits_loss", "attack.search": "shared", "attack.n_iter": 10, "attack.methods[lr].params": {},
    "report.metrics": ["precision", "accuracy", "recall"], "gate.rule": "all_above", "gate.threshold": 0.6,
    "gate.metrics": ["accuracy", "precision", "recall"], "gate.bound": "point",
}  # fmt: skip


# --- words, and marks of the version before --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"data.image_size": [64, 64]}, "data.image_size was [32, 32] and is now [64, 64]"),
        ({"model.kwargs": {"num_classes": 10, "width": 0.5}}, "model.kwargs.width was nothing and is now 0.5"),
        ({"data.members.0.split": "valid"}, "data.members[0].split was train and is now valid"),
        ({"digests.model.checkpoint": "9" * 64}, "the content of model.checkpoint has changed"),
        ({"digests.data:train.bin": "9" * 64}, "the content of train.bin in data.path has changed"),
        ({"digests.data:path": "9" * 64}, "data.path is read now and was not"),
        ({"data.preprocess": "/x/change.py:f"}, "data.preprocess was image and is now *.py:f"),
        ({"data.pad": 0.0}, "data.pad was null and is now 0.0"),
        ({"digests.data.preprocess": "9" * 64}, "data.preprocess is read now and was not"),
        ({"model.factory": "/x/net.py:build"}, "model.factory was mia_batch.models.vgg:vgg11 and is now *.py:build"),
        ({"model.kwargs": {"num_classes": 10, "a": "x" * 100}}, f"model.kwargs.a was nothing and is now {'x' * 77}..."),
    ],
)
def test_differences_are_words(change: dict[str, Any], phrase: str) -> None:
    assert differences(features_identity(a_manifest()), features_identity(a_manifest(**change))) == [phrase]


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"model.output": "/x/out.py:last"}, "model.output was logits and is now *.py:last"),
        ({"model.key": "logits"}, "model.key was null and is now logits"),
        ({"model.index": 0}, "model.index was null and is now 0"),
        ({"model.prefix": "ema."}, "model.prefix was null and is now ema."),
        ({"digests.model.rename": "9" * 64}, "model.rename is read now and was not"),
        ({"digests.model.output": "9" * 64}, "model.output is read now and was not"),
    ],
)
def test_what_is_taken_of_outputs_and_checkpoint_is_part_of_the_features(change: dict[str, Any], phrase: str) -> None:
    assert differences(features_identity(a_manifest()), features_identity(a_manifest(**change))) == [phrase]


def test_where_a_function_or_a_mapping_lies_does_not_count() -> None:
    then = a_manifest(**{"model.output": "/x/out.py:last", "model.rename": "/x/names.yaml"})
    now = a_manifest(**{"model.output": "/y/out.py:last", "model.rename": "/y/names.yaml"})
    assert features_digest(then) == features_digest(now)


def test_a_config_without_the_keys_of_outputs_means_their_defaults() -> None:
    given = {"model.output": "logits", "model.key": None, "model.index": None, "model.prefix": None}
    assert features_digest(a_manifest(**given, **{"model.rename": None})) == features_digest(a_manifest())


def test_never_two_hashes() -> None:
    (phrase,) = differences({"model.factory": "1" * 64}, {"model.factory": "a:b"})
    assert phrase == "model.factory was a file and is now a:b"
    assert differences({"x": "1" * 64}, {"x": "2" * 64}) == ["the content of x has changed"]
    assert differences({"SHA-256 of y": "1" * 64}, {}) == ["y was read and is not now"]


def test_the_mark_of_the_version_before_counts_where_the_attacks_own_section_is_equal() -> None:
    then = a_manifest()
    origin = Origin.of({"config": then.config, "digests": then.digests, "run": "old"})
    assert attack_marks(then, "lr", origin) == (BASE["lr"], "old")
    others = a_manifest(**{"attack.methods.1.params.n_neighbors": [9], "gate.threshold": 0.9})
    assert attack_marks(others, "lr", origin) == (BASE["lr"], "old")
    assert len(attack_marks(a_manifest(**{"attack.methods.0.params.C": [9.0]}), "lr", origin)) == 1
    assert len(attack_marks(a_manifest(**{"attack.seed": 2}), "lr", origin)) == 1
    assert len(attack_marks(a_manifest(**{"digests.model.checkpoint": "9" * 64}), "lr", origin)) == 1
    assert attack_marks(then, "lr", None) == (BASE["lr"],)
    assert attack_marks(then, "lr", Origin(then, None)) == (BASE["lr"],)
    one = a_manifest(**{"attack.methods": a_config()["attack"]["methods"][1:]})
    assert len(attack_marks(then, "lr", Origin(one, "old"))) == 1


@pytest.mark.parametrize(
    "change",
    [{"data.randomised": True}, {"data.canaries": [{"split": "train", "indices": "/c.txt"}]},
     {"audit": {"claimed_epsilon": 1.0, "delta": 1e-5}}, {"digests.data.canaries[0].indices": "4" * 64}],
)
def test_what_is_said_of_coins_and_claims_is_the_verdicts_alone(change: dict[str, Any]) -> None:
    before, after = a_manifest(), a_manifest(**change)
    assert features_digest(before) == features_digest(after)
    assert identity.data_digest(before) == identity.data_digest(after)
    assert attack_identity(before, "lr") == attack_identity(after, "lr")
    assert differences(verdict_identity(before), verdict_identity(after))


def test_a_run_of_before_said_nothing_of_coins_and_claims() -> None:
    nothing = {"data.randomised": False, "data.canaries": [], "audit": {"claimed_epsilon": None, "delta": None}}
    assert differences(verdict_identity(a_manifest()), verdict_identity(a_manifest(**nothing))) == []
