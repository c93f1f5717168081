"""The config is validated whole: each problem one line with file, field, rule, value and the valid choices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from running import REPO

from mia_batch.errors import InputError
from mia_batch.settings.loading import load_config, with_checkpoint
from mia_batch.verdict.rules import RULES, TUTORIAL, Gate, JointRule, Rule

Write = Callable[..., Path]


def problems(path: Path, **options: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_config(path, **options)
    lines = list(caught.value.problems)
    assert all("\n" not in line and line.startswith(str(path)) for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_defaults_are_those_of_the_design(write_config: Write) -> None:
    config = load_config(write_config())
    assert config.gate.gate() == Gate()
    assert [rule.name for rule in config.gate.gate().rules] == ["balanced_accuracy", "tpr_at_fpr_0.01", "epsilon"]
    assert (config.attack.eval_fraction, config.attack.seed, config.attack.search) == (0.2, 1, "shared")
    assert config.data.augment_members is False
    assert config.report.metrics == ("precision", "accuracy", "recall")


CIFARS = {"image_size": [32, 32], "mean": [0.4465, 0.4822, 0.4914], "std": [0.2010, 0.1994, 0.2023]}


@pytest.mark.parametrize("stated", [(), ("mean",), ("std", "image_size"), tuple(CIFARS)])
def test_preprocessing_of_an_own_source_that_is_not_stated(write_config: Write, stated: tuple[str, ...]) -> None:
    """Stated with the very values of CIFAR counts as stated."""
    values = {f"data.{key}": CIFARS[key] for key in stated}
    own = load_config(write_config({"data.source": "a.b:c", "data.path": None, **values}))
    assert own.data.borrowed == tuple(key for key in CIFARS if key not in stated)
    assert with_checkpoint(own, own.model.checkpoint).data.borrowed == own.data.borrowed
    assert load_config(write_config(values)).data.borrowed == ()


OWN = {"data.source": "a.b:c", "data.path": None, "data.preprocess": "none"}
TO_999 = {"range": [1, 999]}
LINES = [
    ({"attack.fold": 3}, "attack.fold: unknown key; valid keys: seed, eval, eval_fraction"),
    ({"data.members": {"split": "train", "amount": 3}},
     "data.members[0].amount: unknown key; valid keys: split, num_samples, range, indices"),
    ({"extra": {}}, "extra: unknown key; valid keys: model, data, extract"),
    ({"attack.cv": 1}, "attack.cv: must be greater than or equal to 2, got 1"),
    ({"attack.cv": "3"}, "attack.cv: must be a valid integer, got '3'"),
    ({"attack.cv": True}, "attack.cv: must be a valid integer, got True"),
    ({"attack.eval_fraction": 1.0}, "attack.eval_fraction: must be less than 1, got 1.0"),
    ({"attack.eval_fraction": float("nan")}, "attack.eval_fraction: must be a finite number, got nan"),
    ({"extract.device": "TPU"}, "extract.device: must be 'auto', 'Ascend', 'GPU' or 'CPU', got 'TPU'"),
    ({"extract.batch_size": 0}, "extract.batch_size: must be greater than or equal to 1, got 0"),
    ({"data.source": "imagenet"}, "data.source: must be cifar100, cifar10, outputs, package.module:function"),
    ({"data.members": []}, "data.members: "),
    ({"data.members": {"split": "train", "num_samples": 3, "range": [0, 2]}},
     "data.members[0]: must have one of num_samples, range, indices, not num_samples and range"),
    ({"data.members": {"split": "train", "range": [5, 5]}}, "data.members[0]: range must be [first, end)"),
    ({"data.members": {"num_samples": 3}}, "data.members[0].split: is required"),
    ({"data.path": None}, "data: path is required for source cifar100"),
    ({"data.std": [0.2, 0.0, 0.2]}, "data.std[1]: must be greater than 0, got 0.0"),
    ({"data.mean": [0.5]}, "data: mean and std must have one value for each channel, got 1 and 3"),
    ({"data.mean": [0.5], "data.std": [0.5]},
     "data: mean and std must have one value for each of 3 channels, got 1"),
    ({"data.mean": []}, "data.mean: "),
    ({"data.columns": {"inputs": "x"}}, "data: columns is for samples of a function: source cifar100 has images"),
    ({"data.preprocess": "none", "data.pad": 0}, "data: pad is for samples of a function: source cifar100 has images"),
    ({"data.preprocess": "resize"},
     "data.preprocess: must be image, none, package.module:function or path/to/file.py:function, got 'resize'"),
    ({"data.preprocess": 3}, "data.preprocess: must be image, none, package.module:function or path/to/file.py:fun"),
    ({"data.preprocess": "gone.py:f"}, "data.preprocess: must be a file that can be read, got "),
    ({"data.preprocess": "none", "data.mean": [0.5]}, "data: mean only with preprocess: image, not none"),
    ({"data.preprocess": "a.b:c", "data.image_size": [8, 8], "data.augment_members": True},
     "data: image_size and augment_members only with preprocess: image, not a.b:c"),
    ({**OWN, "data.preprocess": "image", "data.pad": 0}, "data: pad is for arrays: with preprocess: image all are"),
    ({**OWN, "data.pad_to": 3}, "data: pad (the value to pad with) is required beside pad_to"),
    ({**OWN, "data.pad": "0"}, "data.pad: must be a valid number, got '0'"),
    ({**OWN, "data.pad": True}, "data.pad: must be a valid number, got True"),
    ({**OWN, "data.pad": float("inf")}, "data.pad: must be a finite number, got inf"),
    ({**OWN, "data.pad": 0, "data.pad_to": 0}, "data.pad_to: must be a length of at least 1, or a list of len"),
    ({**OWN, "data.pad": 0, "data.pad_to": [3, 2.5]}, "data.pad_to: must be a length of at least 1, or a list of len"),
    ({**OWN, "data.columns": {"input": "x"}}, "data.columns.input: unknown key; valid keys: inputs, label"),
    ({**OWN, "data.columns": {"inputs": []}}, "data.columns.inputs: must be a name or a list of names, got []"),
    ({**OWN, "data.columns": {"inputs": ["x", "x"]}}, "data.columns.inputs: must name each once, got ['x', 'x']"),
    ({**OWN, "data.columns": {"inputs": ["x", 3]}}, "data.columns.inputs: must be a name or a list of names, got ['x'"),
    ({**OWN, "data.columns": {"inputs": ["x", "label"]}}, "data.columns: inputs must not have the label's column 'lab"),
    ({**OWN, "data.columns": "x"}, "data.columns: must be a mapping"),
    ({"model.factory": "vgg16"},
     "model.factory: must be package.module:function or path/to/file.py:function, got 'vgg16'"),
    ({"model.output": "softmax"},
     "model.output: must be logits, probabilities, package.module:function or path/to/file.py:function, got 'softmax'"),
    ({"model.output": 3}, "model.output: must be logits, probabilities, package.module:function or path/to/file.py"),
    ({"model.output": "gone.py:last"}, "model.output: must be a file that can be read, got "),
    ({"model.output": "$NOT_SET_ANYWHERE/a.py:last"}, "model.output: must be logits, probabilities, package.module"),
    ({"model.index": -1}, "model.index: must be greater than or equal to 0, got -1"),
    ({"model.index": "0"}, "model.index: must be a valid integer, got '0'"),
    ({"model.index": True}, "model.index: must be a valid integer, got True"),
    ({"model.key": ""}, "model.key: string should have at least 1 character, got ''"),
    ({"model.key": 0}, "model.key: must be a valid string, got 0"),
    ({"model.key": "a", "model.index": 0}, "model: must have one of key (of a dict) and index (of a tuple or list)"),
    ({"model.prefix": ""}, "model.prefix: string should have at least 1 character, got ''"),
    ({"model.rename": "gone.yaml"}, "model.rename: must be a file that can be read, got "),
    ({"model.rename": {"a": "b"}}, "model.rename: must be a path"),
    ({"model.checkpoint": None}, "model.checkpoint: is required"),
    ({"model.checkpoint": "$NOT_SET_ANYWHERE/x.ckpt"},
     "model.checkpoint: uses the environment variable NOT_SET_ANYWHERE, which is not set, got"),
    ({"model.checkpoint": "gone.ckpt"}, "model.checkpoint: must be a file that can be read, got "),
    ({"model.checkpoint": "."}, "model.checkpoint: must be a file that can be read, got "),
    ({"data.path": "nowhere"}, "data.path: must exist and be readable, got "),
    ({"data.members": {"split": "train", "indices": "gone.npy"}},
     "data.members: must be a file that can be read, got "),
    ({"attack.methods": []}, "attack.methods: "),
    ({"attack.methods": [{"method": "svm", "params": {}}]},
     "attack.methods[0].method: must be one of lr, knn, mlp, rf, hgb, threshold_loss, threshold_confidence, "),
    ({"attack.methods": [{"method": "lr", "params": {"C": []}}]},
     "attack.methods[0].params.C: must have at least one value, got []"),
    ({"attack.methods": [{"method": "lr", "params": {"C": 1.0}}]}, "attack.methods[0].params.C: must be a list, or"),
    ({"attack.methods": [{"method": "lr", "params": {"C": {"logspace": [1, 2]}}}]},
     "attack.methods[0].params.C: logspace must be [first, last, count] in numbers, got [1, 2]"),
    ({"attack.methods": [{"method": "lr", "params": {"C": {"geomspace": [1, 2, 3]}}}]},
     "attack.methods[0].params.C: must be a mapping with one of logspace, linspace, range"),
    ({"attack.methods": [{"method": "lr", "params": {"C": {"logspace": [-4, 2, 10**10]}}}]},
     "attack.methods[0].params.C: logspace must give at most 10000 values, got [-4, 2, 10000000000]"),
    ({"attack.methods": [{"method": "lr", "params": {"C": {"logspace": [-4, 2000, 3]}}}]},
     "attack.methods[0].params.C: logspace must give finite values, got [-4, 2000, 3]"),
    ({"attack.methods": [{"method": "knn", "params": {"n_neighbors": {"range": [1, 10**12]}}}]},
     "attack.methods[0].params.n_neighbors: range must give at most 10000 values"),
    ({"attack.methods": [{"method": "rf", "params": {"max_depth": TO_999, "n_estimators": TO_999}}]},
     "attack.methods[0].params: must give at most 100000 candidates together, got 996004"),
    ({"data.members": 3}, "data.members: must be a block with split, or a list of blocks, got 3"),
    ({"data.nonmembers_used_for": "training"},
     "data.nonmembers_used_for: must be 'none', 'selection' or 'unknown', got 'training'"),
    ({"data.nonmembers_used_for": False}, "data.nonmembers_used_for: must be 'none', 'selection' or 'unknown', got"),
    ({"data.kwargs": {"size": 3}}, "data: kwargs go to a function: source cifar100 takes none"),
    ({"data.source": "a.b:c", "data.kwargs": {"split": "x"}}, "data: kwargs must not have split or path"),
    ({"data.source": "a.b:c", "data.label": "fine"}, "data: label chooses between the labels of records"),
    ({"model.kwargs": {"width": float("nan")}}, "model.kwargs: width must be a finite number, got nan"),
    ({"model.kwargs": {"a": [1, date(2024, 1, 2)]}}, "model.kwargs: a[1] must be text, a number, true, false, null"),
    ({"model.kwargs": {"a": {3: 1}}}, "model.kwargs: a must have names that are text, got 3"),
    ({"model.checkpoint": "x" * 300}, "model.checkpoint: must be a file that can be read, got "),
    ({"data.path": "x" * 300}, "data.path: must exist and be readable, got "),
    ({"attack.methods": [{"method": "lr"}, {"method": "lr"}]}, "attack.methods: must name each once, lr repeated"),
    ({"attack.methods": [{"method": "threshold_loss", "params": {"C": [1]}}]},
     "attack.methods[0].params.C: is unknown: threshold_loss takes no parameters"),
    ({"attack.methods": [{"method": "lr", "params": {"the C": 1}}]}, "attack.methods[0].params.the C: must be a list"),
    ({"attack.methods": [{"method": "lr", "params": {"the C": [1]}}]},
     "attack.methods[0].params.the C: is unknown; valid parameters: "),
    ({"attack.methods": [{"method": "lr", "notes": []}]},
     "attack.methods[0].notes: unknown key; valid keys: method, params"),
    ({"my key": 1}, "my key: unknown key; valid keys: model, data"),
    ({"attack.features": "loss"}, "attack.features: must be 'signals', 'logits_loss' or 'mindarmour', got 'loss'"),
    ({"attack.backend": "dask"}, "attack: scheduler (an address or a scheduler file) goes with backend: dask"),
    ({"report.metrics": ["auc", "precisoin"]},
     "report.metrics[1]: must be 'accuracy', 'precision', 'recall', 'balanced_accuracy', 'auc', 'advantage', "
     "'tpr_at_fpr' or 'predictive_value', got 'precisoin'"),
    ({"audit": {"claimed_epsilon": 1}}, "audit.delta: is required beside claimed_epsilon"),
    ({"audit": {"delta": 1e-5}}, "audit.claimed_epsilon: is required beside delta"),
    ({"audit": {"claimed_epsilon": -1, "delta": 1e-5}}, "audit.claimed_epsilon: must be greater than or equal to 0"),
    ({"audit": {"claimed_epsilon": 1, "delta": 1}}, "audit.delta: must be less than 1, got 1"),
    ({"audit": {"epsilon": 1}}, "audit.epsilon: unknown key; valid keys: claimed_epsilon, delta"),
    ({"data.randomised": "yes"}, "data.randomised: must be a valid boolean, got 'yes'"),
    ({"data.randomised": True, "data.canaries": {"split": "train"}}, "data: must have one of randomised (of all"),
    ({"data.canaries": {"split": "train", "indices": "gone.txt"}}, "data.canaries: must be a file that can be read"),
    ({"data.canaries": {"part": "train", "split": "train"}}, "data.canaries[0].part: unknown key; valid keys: split"),
    ({"report.metrics": [{"auc": 1}]}, "report.metrics[0]: must be 'accuracy', 'precision'"),
    ({"report.metrics": []}, "report.metrics: must have at least 1, got []"),
    ({"report.metrics": "auc"}, "report.metrics: must be a list, got 'auc'"),
    ({"gate.metrics": ["tpr_at_fpr"]},
     "gate.metrics[0]: must be 'accuracy', 'precision', 'recall', 'balanced_accuracy', 'auc' or 'advantage', got "
     "'tpr_at_fpr'"),
    ({"gate": "strict"}, "gate: must be tutorial, or a mapping, got 'strict'"),
    ({"gate": {"rules": [], "alpha": 0.05}}, "gate.rules: must have at least 1"),
    ({"gate": {"rule": "all_above", "tutorial": True}}, "gate: must have one of tutorial and rule of a joint rule"),
    ({"gate": {"rules": [{"metric": "f1", "above": 0.5}]}},
     "gate.rules[0].metric: must be 'balanced_accuracy', 'tpr_at_fpr', 'epsilon', 'auc' or 'advantage', got 'f1'"),
    ({"gate": {"rules": [{"metric": "tpr_at_fpr", "above": 0.5}]}}, "gate.rules[0]: fpr is required for metric"),
    ({"gate": {"rules": [{"metric": "auc", "above": 0.5, "delta": 0.1}]}}, "gate.rules[0]: delta does not go with"),
    ({"gate": {"rules": [{"metric": "auc", "above": 0.2}]}}, "gate.rules[0]: above must be in [0.5, 1), not 0.2"),
    ({"gate": {"rules": [{"metric": "auc", "above": 1}]}}, "gate.rules[0]: above must be in [0.5, 1), not 1.0"),
    ({"gate.threshold": 1}, "gate.threshold: must be less than 1, got 1"),
    ({"attack.memory_gib": 1e300}, "attack.memory_gib: must be less than or equal to 1048576, got 1e+300"),
    ({"gate": {"rules": [{"metric": "auc", "above": 0.7, "level": 0.2}]}},
     "gate.rules[0].level: unknown key; valid keys: metric"),
    ({"gate": {"rules": [{"metric": "epsilon", "above": 1, "decides": "both"}]}},
     "gate.rules[0]: decides must be leak for metric epsilon, which has no upper bound"),
    ({"gate": {"rules": [{"metric": "epsilon", "above": 1}]}},
     "gate.rules: must have a rule that decides no_leak or both, got none among 1"),
    ({"gate.rule": "most"}, "gate.rule: must be 'all_above' or 'any_above', got 'most'"),
    ({"gate.rule": ["all_above"]}, "gate.rule: must be 'all_above' or 'any_above', got ['all_above']"),
    ({"gate.threshold": 60}, "gate.threshold: must be less than 1, got 60"),
    ({"gate.metrics": ["accuracy", "accuracy"]}, "gate.metrics: must name each once, accuracy repeated"),
]


@pytest.mark.parametrize(("changes", "line"), LINES, ids=[line[:50] for _, line in LINES])
def test_each_problem_is_one_line(write_config: Write, changes: dict[str, Any], line: str) -> None:
    found = problems(write_config(changes))
    assert len(found) == 1, found
    assert found[0].startswith(line)


def test_all_problems_of_imported_outputs_come_at_once(tmp_path: Path) -> None:
    """Keys there are not, those of samples for a network, and what is missing."""
    data = {"source": "outputs", "fils": "a.npz", "my key": 1, "members": {"split": "train"}, "randomised": "yes"}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"data": data, "attack": {"methods": [{"method": "correctness"}]}}))
    valid = "unknown key; valid keys: source, files, columns, randomised, canaries, nonmembers_used_for, max_duplicates"
    assert sorted(problems(path)) == [
        "data.files: is required", f"data.fils: {valid}; did you mean files?",
        "data.members: does not go with source outputs: data.files holds all that is known",
        f"data.my key: {valid}", "data.randomised: must be a valid boolean, got 'yes'",
    ]  # fmt: skip


def test_all_problems_come_at_once(write_config: Write) -> None:
    found = problems(write_config({"attack.cv": 0, "attack.seed": -1, "model.kwarg": 1, "data.path": "nowhere"}))
    assert [line.split(":")[0] for line in found] == ["model.kwarg", "attack.seed", "attack.cv", "data.path"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1", "line 1, column"),
        ("model: 1\nmodel: 2\n", "line 2, column 1: YAML: key 'model' is given twice"),
        ("- 1\n", "must be a mapping with model, data, attack, got list"),
        ("", "must be a mapping with model, data, attack, got NoneType"),
        ("? [a, b]\n: 1\n", "line 1, column 3: YAML: a key must be text"),
        ("model: 2024-13-45\n", "YAML: must hold values that can be read, got ValueError: month must be in"),
        ("model: " + "[" * 3000 + "]" * 3000, "line 1, column 39: YAML: must have at most 32 lists and mappings"),
        ("model: 1" + "0" * 5000, "line 1, column 8: YAML: must be a whole number below 2**64, got 1000"),
        ("model: &a [*a]\n", "line 1, column 12: YAML: *a must not be within what it names"),
        ("model:\n\tfactory: a\n", "line 2, column 1: YAML: found character"),
        ("model: !!python/object:os.system {}\n", "line 1, column 8: YAML: must have no tag, or that"),
    ],
)
def test_yaml_that_is_no_config(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert problems(path)[0].startswith(line)


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin1.yaml").write_bytes(b"model: \xff\n")
    assert problems(tmp_path / "latin1.yaml")[0].startswith("must be YAML text in UTF-8")
    assert problems(tmp_path / "gone.yaml") == ["must be a configuration file, got: No such file or directory"]
    assert problems(tmp_path) == ["must be a configuration file, got: Is a directory"]


@pytest.mark.parametrize("without", ["", "AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"])
def test_a_grid_is_the_same_on_every_processor(without: str) -> None:
    """numpy's powers are not: where one node makes .1, another makes .09999999999999999, and attacks would be stale."""
    code = "from mia_batch.settings.grids import expand_values; print(expand_values({'logspace': [-4, 2, 7]}))"
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": without}
    command = [sys.executable, "-W", "ignore", "-c", code]  # of features that this processor has not
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert said.stdout.strip() == "(0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0)"


def test_grids_are_made_explicit(write_config: Write) -> None:
    config = load_config(write_config({"attack.methods": [
        {"method": "lr", "params": {"C": {"logspace": [-4, 2, 10]}, "tol": [1e-4]}},
        {"method": "knn", "params": {"n_neighbors": {"range": [3, 8, 2]}}},
        {"method": "rf",
         "params": {"max_features": ["auto", "sqrt"], "max_depth": [5, None], "min_samples_split": [2, 2]}},
        {"method": "mlp", "params": {"hidden_layer_sizes": [[64], [32, 32]]}},
    ]}))
    lr, knn, rf, mlp = config.attack.methods
    np.testing.assert_allclose(lr.params["C"], np.logspace(-4, 2, 10), rtol=1e-11)
    assert lr.params["tol"] == (1e-4,)
    assert knn.params["n_neighbors"] == (3, 5, 7)
    assert rf.params == {"max_features": ("sqrt",), "max_depth": (5, None), "min_samples_split": (2,)}
    assert mlp.params["hidden_layer_sizes"] == ((64,), (32, 32))
    assert any("auto is read as sqrt" in note for note in rf.notes)
    assert any("repeated value(s) searched once" in note for note in rf.notes)


def test_paths_expand_and_are_relative_to_the_config(write_config: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config({"model.checkpoint": "${WHERE}/net.ckpt", "data.path": "data"})
    monkeypatch.setenv("WHERE", ".")
    monkeypatch.chdir("/")
    config = load_config(path)
    assert config.model.checkpoint == path.parent / "net.ckpt"
    assert config.data.path == path.parent / "data"


def test_another_checkpoint_takes_the_place_of_the_configs(write_config: Write, tmp_path: Path) -> None:
    (tmp_path / "other.ckpt").write_bytes(b"")
    config = load_config(write_config({"model.checkpoint": "gone"}), checkpoint=tmp_path / "other.ckpt")
    assert config.model.checkpoint == tmp_path / "other.ckpt"


def test_files_that_a_stage_does_not_need_may_be_missing(write_config: Write) -> None:
    path = write_config({"model.checkpoint": "gone", "data.path": "nowhere"})
    assert load_config(path, need=()).model.checkpoint.name == "gone"
    assert len(problems(path, need=("data",))) == 1


def test_exponents_without_a_point_are_numbers(tmp_path: Path, write_config: Write) -> None:
    path = write_config()
    path.write_text(path.read_text().replace("cv: 2", "cv: 2\n  memory_gib: 1e-1"))
    assert load_config(path).attack.memory_gib == 0.1


@pytest.mark.parametrize("name", ["demo", "vgg16_cifar100"])
def test_shipped_configs_are_valid_and_every_key_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mia_batch.files import shipped
    from mia_batch.settings.schema import SECTIONS

    monkeypatch.setenv("MIA_CHECKPOINT", "x.ckpt")
    monkeypatch.setenv("CIFAR100_DIR", "data")
    path = shipped("configs") / f"{name}.yaml"
    load_config(path, need=())
    raw = yaml.safe_load(path.read_text())
    for section, model in SECTIONS.items():
        if section not in ("gate", "audit", "references", "dossier"):  # one of several forms; only where there is any
            optional = {"scheduler", "trajectory", "kwargs", "output", "canaries", "columns", "pad", "pad_to"}
            optional |= {"key", "index", "prefix", "rename"}
            assert set(model.model_fields) - set(raw[section]) <= optional, section
    gates = {"demo": Gate(), "vgg16_cifar100": Gate(joint=TUTORIAL, tutorial=True)}
    assert load_config(path, need=()).gate.gate() == gates[name]


GATES: list[tuple[Any, Gate]] = [
    ("tutorial", Gate(joint=TUTORIAL, tutorial=True)),
    ({"tutorial": True}, Gate(joint=TUTORIAL, tutorial=True)),
    ({}, Gate()),
    ({"weak_model": True}, Gate()),
    ({"alpha": 0.01}, Gate(alpha=0.01)),
    ({"rule": "all_above"}, Gate(joint=TUTORIAL)),
    ({"metrics": ["auc"], "bound": "lower"}, Gate(joint=JointRule("all_above", 0.6, ("auc",), "lower"))),
    ({"threshold": 0.7}, Gate(joint=JointRule("all_above", 0.7, TUTORIAL.metrics))),
    ({"rules": [{"metric": "balanced_accuracy", "above": 0.6}, {"metric": "tpr_at_fpr", "fpr": 0.01, "above": 0.1},
                {"metric": "epsilon", "above": 1, "delta": 1e-5}]}, Gate(RULES)),
    ({"rules": [{"metric": "auc", "above": 0.7, "bound": "point"}]}, Gate((Rule("auc", 0.7, bound="point"),))),
]


@pytest.mark.parametrize(("raw", "gate"), GATES)
def test_forms_of_a_gate(write_config: Write, raw: Any, gate: Gate) -> None:
    config = load_config(write_config({"gate": raw}))
    assert config.gate.gate() == gate
    written = config.resolved()["gate"]
    assert load_config(write_config({"gate": written})).gate.gate() == gate


def test_a_joint_rule_is_written_as_versions_before_have_written_it(write_config: Write) -> None:
    assert load_config(write_config({"gate": {"threshold": 0.7}})).resolved()["gate"] == {
        "rule": "all_above", "threshold": 0.7, "metrics": ["accuracy", "precision", "recall"], "bound": "point",
    }  # fmt: skip


def test_the_tutorials_case_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    from mia_batch.files import shipped
    from mia_batch.search.estimators import n_candidates

    monkeypatch.setenv("MIA_CHECKPOINT", "x.ckpt")
    monkeypatch.setenv("CIFAR100_DIR", "data")
    config = load_config(shipped("configs") / "vgg16_cifar100.yaml", need=())
    assert {m.method: n_candidates(m.params) for m in config.attack.methods} == {"lr": 10, "knn": 3, "mlp": 6, "rf": 36}
    assert (config.data.image_size, config.extract.batch_size) == ((224, 224), 64)
    assert [block.num_samples for block in (*config.data.members, *config.data.nonmembers)] == [5000, 5000]


def test_another_checkpoint_checks_only_what_it_changes(
    tmp_path: Path, write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write_config())
    (tmp_path / "other.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mia_batch.settings.loading.read_yaml", None)
    other = with_checkpoint(config, "other.ckpt")
    assert other.model.checkpoint == tmp_path / "other.ckpt"
    assert other.model_copy(update={"model": config.model}) == config
    with pytest.raises(InputError) as caught:
        with_checkpoint(config, tmp_path / "gone.ckpt")
    rule = f"model.checkpoint: must be a file that can be read, got {tmp_path}/gone.ckpt, which does not exist"
    assert caught.value.problems == (f"{config.path}: {rule}",)


def test_the_manuals_dossier_has_every_key_and_is_read(write_config: Write) -> None:
    from mia_batch.settings.schema import DossierConfig

    text = (REPO / "docs" / "report.md").read_text()
    raw = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["dossier"]
    assert set(raw) == set(DossierConfig.model_fields)
    dossier = load_config(write_config({"dossier": raw})).dossier
    assert dossier.retest == "2031-05-01"
    assert dossier.measures == ("train with DP-SGD", "publish classes without scores")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("retest", "soon", "must be a day, such as 2030-12-31, got 'soon'"),
        ("retest", 2031, "must be a day, such as 2030-12-31, got 2031"),
        ("measures", "train less", "must be a list"), ("measures", [""], "at least 1 character"),
        ("training_records", 0, "greater than or equal to 1, got 0"), ("organisation", "", "at least 1 character"),
        ("organization", "x", "did you mean organisation?"),
    ],
)  # fmt: skip
def test_a_dossier_that_is_refused(write_config: Write, key: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        load_config(write_config({f"dossier.{key}": value}))
    assert len(refused.value.problems) == 1
    assert f"dossier.{key}" in refused.value.problems[0]
    assert said in refused.value.problems[0]
