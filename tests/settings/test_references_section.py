"""The section `references`: what it takes, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.rundir.reference_files import reference_weights
from mia_batch.settings.json_schema import config_schema
from mia_batch.settings.loading import load_config
from mia_batch.stages.plan import make_manifest, make_plan

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, write_config: Write) -> Write:
    """The plain config with eleven references, and changes by dotted key."""
    for i in range(11):
        (tmp_path / f"ref_{i}.ckpt").write_bytes(b"weights %d" % i)
    np.save(tmp_path / "in.npy", np.zeros((11, 160), dtype=bool))
    section = {"references.checkpoints": ["ref_*.ckpt"], "references.inclusion": "in.npy"}
    return lambda changes=None: write_config(section | (changes or {}))


def problem(path: Path) -> str:
    with pytest.raises(InputError) as found:
        load_config(path)
    return "\n".join(found.value.problems)


def test_globs_are_in_natural_order_and_the_store_is_beside_the_config(tmp_path: Path, write: Write) -> None:
    found = load_config(write()).references
    assert found is not None
    assert [file.name for file in found.checkpoints] == [f"ref_{i}.ckpt" for i in range(11)]
    assert found.store == tmp_path / "references"
    assert (found.logits, found.n_queries) == ("float32", 1)
    named = load_config(write({"references.checkpoints": ["ref_3.ckpt", "ref_1*.ckpt"], "references.store": "x"}))
    assert named.references is not None
    assert [file.name for file in named.references.checkpoints] == ["ref_3.ckpt", "ref_1.ckpt", "ref_10.ckpt"]
    assert named.references.store == tmp_path / "x"
    asked = load_config(write({"references.queries": {"flip": True, "shifts": 2}})).references
    assert asked is not None
    assert asked.n_queries == 6
    assert "references" not in load_config(write({"references": None})).resolved()


def test_models_to_be_trained_are_named_before_they_are_there(tmp_path: Path, write: Write) -> None:
    config = load_config(write({"references": {"shadows": "s", "count": 4}}))
    assert config.references is not None
    weights = reference_weights(config.references)
    assert list(weights) == [f"references.shadows[{i}]" for i in range(4)]
    assert weights["references.shadows[3]"] == tmp_path / "s" / "shadow_003.ckpt"
    (tmp_path / "s").mkdir()
    assert not any(field.startswith("references.") for field in make_manifest(config).digests)
    weights["references.shadows[2]"].write_bytes(b"weights")
    assert make_manifest(config).digests["references.shadows[2]"] == sha256(weights["references.shadows[2]"])


@pytest.mark.parametrize(("changes", "said"), [
    ({"references.checkpoints": ["gone_*.ckpt"]}, "references.checkpoints: must match a file, none matches gone_"),
    ({"references.checkpoints": "ref_1.ckpt"}, "references.checkpoints: must be a list of files, which may be globs"),
    ({"references.checkpoints": []}, "references.checkpoints: must be a list of files"),
    ({"references.checkpoints": ["gone.ckpt"]}, "references.checkpoints[0]: must be a file that can be read, got "),
    ({"references.inclusion": "gone.npy"}, "references.inclusion: must be a file that can be read, got "),
    ({"references.inclusion": ""}, "references.inclusion: must be a path, got ''"),
    ({"references.logits": "float64"}, "references.logits: must be 'float32' or 'float16', got 'float64'"),
    ({"references.stor": "x"}, "references.stor: unknown key; valid keys: checkpoints, inclusion, shadows, count, "),
    ({"references.shadows": "s"}, "references.checkpoints: must not be there beside shadows"),
    ({"references.count": 4}, "references.checkpoints: must not be there beside shadows"),
    ({"references": {"shadows": "s"}}, "references.count: is required"),
    ({"references": {"shadows": "s", "count": 3}}, "references.count: must be an even number from 2 to 1000, as"),
    ({"references": {"shadows": "s", "count": 1002}}, "references.count: must be an even number from 2 to 1000, as"),
    ({"references.queries": {"flips": True}}, "references.queries.flips: unknown key; valid keys: flip, shifts, seed"),
    ({"references.queries": {"shifts": 81}}, "references.queries.shifts: must be less than or equal to 80, got 81"),
    ({"data.augment_members": True}, "data.augment_members: must be false beside references, got true"),
])  # fmt: skip
def test_what_cannot_be_is_refused(write: Write, changes: dict[str, Any], said: str) -> None:
    assert said in problem(write(changes))


def test_queries_are_of_images(write: Write, tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text("def make(split): ...")
    changes = {"data.source": "source.py:make", "data.path": None, "data.preprocess": "none"}
    line = problem(write({**changes, "references.queries": {}}))
    assert "references.queries: must be left out where samples are no images, got data.preprocess: none" in line


def test_weights_count_by_content(tmp_path: Path, write: Write) -> None:
    (tmp_path / "ref_10.ckpt").write_bytes(b"weights 4")
    with pytest.raises(InputError, match=r"references.checkpoints\[10\]: must be other weights .*ref_10.ckpt, whose"):
        make_manifest(load_config(write()))
    (tmp_path / "ref_10.ckpt").write_bytes((tmp_path / "net.ckpt").read_bytes())
    with pytest.raises(InputError, match=r"ref_10.ckpt, whose content is that of model.checkpoint"):
        make_manifest(load_config(write()))


def test_a_plan_looks_at_inclusion_and_at_every_checkpoint(tmp_path: Path, write: Write) -> None:
    np.save(tmp_path / "in.npy", np.zeros((10, 160), dtype=bool))
    with pytest.raises(InputError) as found:
        make_plan(load_config(write()))
    lines = found.value.problems
    assert any(line.startswith(f"{tmp_path}/in.npy: references.inclusion: must have a row") for line in lines)
    wanted = [f"ref_{i}.ckpt: references.checkpoints[{i}]: must be " for i in range(11)]
    assert all(any(each in line for line in lines) for each in wanted)


def test_the_schema_knows_the_section() -> None:
    schema = config_schema()
    assert schema["properties"]["references"]["$ref"] == "#/$defs/ReferencesConfig"
    assert schema["$defs"]["ReferencesConfig"]["properties"]["store"]["default"] == "references"
