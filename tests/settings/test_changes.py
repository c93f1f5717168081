"""`--set` changes a config as an edit of its file would: the same values, the same rules, one line for each fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mia_batch.errors import InputError
from mia_batch.settings.changes import make_changes, read_changes
from mia_batch.settings.loading import load_config

Write = Callable[..., Path]
GRID = {"method": "lr", "params": {"C": [1.0]}}


def changed(raw: dict[str, Any], *said: str) -> dict[str, Any]:
    make_changes(raw, read_changes(said))
    return raw


def line_of(path: Path, *said: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_config(path, changes=said, **options)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("2", 2), ("1e-4", 1e-4), (" [1, 10]", [1, 10]), ("{logspace: [-4, 2, 3]}", {"logspace": [-4, 2, 3]}),
        ("null", None), ("''", ""), ("a b", "a b"), ("x=y", "x=y"), ("'#3'", "#3"), ("true", True),
        ("mine.py:f", "mine.py:f"), ("$X/y", "$X/y"), ("a: 1\nb: 2", {"a": 1, "b": 2}), ("a=b=c", "a=b=c"),
    ],
)  # fmt: skip
def test_a_value_is_what_it_would_be_in_the_file(said: str, value: Any) -> None:
    assert changed({}, f"key={said}") == {"key": value}
    assert changed({"a": {"b": [{"c": 0}]}}, f"a.b[0].c={said}") == {"a": {"b": [{"c": value}]}}


def test_a_place_is_made_or_spelt_out_where_the_file_has_a_short_form() -> None:
    assert changed({"report": None}, "report.metrics=[auc]", "audit.delta=0") == {
        "report": {"metrics": ["auc"]}, "audit": {"delta": 0},
    }  # fmt: skip
    assert changed({"gate": "tutorial"}, "gate.alpha=0.1") == {"gate": {"tutorial": True, "alpha": 0.1}}
    assert changed({"gate": {"alpha": 0.1}}, "gate=tutorial") == {"gate": "tutorial"}
    one = {"data": {"members": {"split": "train"}}}
    assert changed(one, "data.members[0].range=[0, 9]")["data"]["members"] == [{"split": "train", "range": [0, 9]}]


def test_what_yaml_has_in_two_places_is_changed_in_one() -> None:
    raw = yaml.safe_load("data: {members: &m {split: train}, canaries: *m}\ngate: &g {}\nreport: *g")
    changed(raw, "data.members.num_samples=3", "gate.alpha=0.1")
    assert raw == {
        "data": {"members": {"split": "train", "num_samples": 3}, "canaries": {"split": "train"}},
        "gate": {"alpha": 0.1}, "report": {},
    }  # fmt: skip


FORM = "--set: must be KEY=VALUE, such as attack.methods[0].params.C=[1,10], got "
LINES = [
    ("", f"{FORM}''"), ("attack.seed", f"{FORM}'attack.seed'"), ("=2", f"{FORM}'=2'"), ("attack..cv=2", FORM),
    ("attack.methods[x]=2", FORM), ("attack.methods[0=2", FORM), ("a b=2", FORM), ("[0]=2", FORM),
    ("attack.seed=", "--set: attack.seed: must have a value, such as null or '', got ''"),
    ("attack.seed=  ", "--set: attack.seed: must have a value, such as null or '', got '  '"),
    ("data.group=#3", "--set: data.group: must have a value"),
    ("data.path=a #b", "--set: data.path: must be one value of YAML, in quotes if it has a #, got 'a #b'"),
    ("attack.seed=[1", "--set: attack.seed: line 1, column 3: YAML: expected ',' or ']'"),
    ("attack.seed=1\n---\n2", "--set: attack.seed: line 2, column 1: YAML: but found another document"),
    ("attack.seed={a: 1, a: 2}", "--set: attack.seed: line 1, column 8: YAML: key 'a' is given twice"),
    ("attack.seed=" + "[" * 3000, "--set: attack.seed: "),
    ("attack.seed=2024-13-45", "--set: attack.seed: YAML: must hold values that can be read, got ValueError"),
    ("attack.cv=0", "--set: attack.cv: must be greater than or equal to 2, got 0"),
    ("attack.cv='3'", "--set: attack.cv: must be a valid integer, got '3'"),
    ("attack.sede=2", "--set: attack.sede: unknown key; valid keys: seed, eval, "),
    ("atack.seed=2", "--set: atack: unknown key; valid keys: model, data, extract, attack, "),
    ("attack.methods[1].method=rf", "--set: attack.methods[1].method: must be a place from 0 to 0, got 1"),
    ("attack.methods.C=1", "--set: attack.methods.C: attack.methods must be a mapping, got [{"),
    ("attack.cv.x=1", "--set: attack.cv.x: attack.cv must be a mapping, got 2"),
    ("attack[0]=1", "--set: attack[0]: attack must be a list, got {"),
    ("attack.seed[0]=1", "--set: attack.seed[0]: attack.seed must be a list, got None"),
    ("attack.methods[0].params.C=[]", "--set: attack.methods[0].params.C: must have at least one value, got []"),
    ("data.members.amount=3", "--set: data.members[0].amount: unknown key; valid keys: split"),
    ("model.checkpoint=gone.ckpt", "--set: model.checkpoint: must be a file that can be read, got "),
]


@pytest.mark.parametrize(("said", "line"), LINES, ids=[said[:30] for said, _ in LINES])
def test_each_fault_is_one_line(write_config: Write, said: str, line: str) -> None:
    assert line_of(write_config(), said).startswith(line)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (("attack.seed=1", "attack.seed=2"), "--set: attack.seed: must be given once, got it again"),
        (("attack.seed=1", "attack={}"), "--set: attack: must not be set beside attack.seed, got both"),
        (("data.members={split: test}", "data.members[0].split=test"),
         "--set: data.members[0].split: must not be set beside data.members, got both"),
    ],
)
def test_what_one_says_no_other_takes_back(write_config: Write, said: tuple[str, ...], line: str) -> None:
    assert line_of(write_config(), *said) == line


def test_all_faults_come_at_once(write_config: Write) -> None:
    with pytest.raises(InputError) as caught:
        load_config(write_config({"data.path": "nowhere"}), changes=("attack.cv=0", "attack.seed=-1"))
    assert [line.split(": ")[1] for line in caught.value.problems] == ["attack.seed", "attack.cv", "data.path"]


def test_a_checkpoint_is_named_once(write_config: Write, tmp_path: Path) -> None:
    rule = "must not be set where --checkpoint, --checkpoints or --watch names the checkpoint"
    assert line_of(write_config(), "model.checkpoint=net.ckpt", checkpoint=tmp_path / "net.ckpt") == (
        f"--set: model.checkpoint: {rule}, got both"
    )


def test_paths_are_relative_to_the_configs_folder(write_config: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config({"data.path": "nowhere"})
    monkeypatch.chdir("/")
    assert load_config(path, changes=["data.path=data"]).data.path == path.parent / "data"


def test_a_change_counts_as_if_it_stood_in_the_file(write_config: Write) -> None:
    said = ("attack.seed=2", "attack.methods[0].params.C=[1,10]", "data.members={split: train, num_samples: 50}")
    in_file = write_config({
        "attack.seed": 2, "attack.methods": [{"method": "lr", "params": {"C": [1, 10]}}],
        "data.members": {"split": "train", "num_samples": 50},
    }, name="edited.yaml")  # fmt: skip
    config = load_config(write_config(), changes=said)
    assert config.resolved() == load_config(in_file).resolved()
    assert config.changes == said
