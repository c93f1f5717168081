"""What `mia-batch check` says of a run is what the run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rundirs import one_entry

from mia_batch.attacks.split import make_splits
from mia_batch.commands.check import plan_lines, sample_lines
from mia_batch.inputs import STATISTICS
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config
from mia_batch.stages.plan import look_at, make_plan


@pytest.mark.parametrize("eval_fraction", [0.2, 0.32, 0.321, 0.5, 0.7])
def test_the_split_is_the_one_that_the_attacks_get(write_config: Callable[..., Path], eval_fraction: float) -> None:
    config = load_config(write_config({"attack.eval": "holdout", "attack.eval_fraction": eval_fraction}))
    selection = look_at(config.data)[0]
    (split,) = make_splits(selection.member, **config.attack.splitting())
    lines = plan_lines(config, selection, 1)
    assert any(line.startswith(f"attack:  fit on {len(split.fit)}, score {len(split.evaluated)}, ") for line in lines)


def test_with_cross_fitting_every_sample_scores(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config({"attack.max_rows": 100}))
    selection = look_at(config.data)[0]
    assert {len(split.fit) for split in make_splits(selection.member, **config.attack.splitting())} == {100}
    assert any(line.startswith("attack:  fit on 100 5 times, score 160, ") for line in plan_lines(config, selection, 1))


def test_attacks_without_a_grid_are_shown_as_such(write_config: Callable[..., Path]) -> None:
    methods = [{"method": "threshold_loss"}, {"method": "lr"}, {"method": "attack_p"}]
    for search in ("shared", "halving"):
        config = load_config(write_config({"attack.methods": methods, "attack.search": search}))
        lines = [line.strip() for line in plan_lines(config, look_at(config.data)[0], 1)]
        assert {"threshold_loss: no grid to search", "attack_p: no grid to search"} <= set(lines)
        assert any(line.startswith("lr: 1 candidates, ") for line in lines)


@pytest.mark.parametrize(
    ("kind", "methods", "n_columns"),
    [
        ("signals", ["lr"], 17), ("signals", ["lr", "threshold_loss"], 18), ("logits_loss", ["lr"], 11),
        ("signals", ["class_threshold_loss"], 2), ("mindarmour", ["lr", "attack_p"], 12),
    ],
)
def test_what_the_attacks_share_is_counted(
    write_config: Callable[..., Path], kind: str, methods: list[str], n_columns: int
) -> None:
    chosen = [{"method": method} for method in methods]
    config = load_config(write_config({"attack.features": kind, "attack.methods": chosen}))
    lines = plan_lines(config, look_at(config.data)[0], 1)
    n_columns += 1 + 10 + len(STATISTICS)  # of the blind baseline
    assert any(f"{8 * 160 * n_columns / 1024:.1f} KiB more while it runs" in line for line in lines)


def gate_lines(config: Config) -> list[str]:
    lines = plan_lines(config, look_at(config.data)[0], 2)
    first = next(i for i, line in enumerate(lines) if line.startswith("reduce:"))
    return [line[9:] for line in lines[first:]]


@pytest.mark.parametrize(("rule", "said"), [("all_above", "all of"), ("any_above", "any of")])
def test_a_joint_rule_is_said_in_words(write_config: Callable[..., Path], rule: str, said: str) -> None:
    lines = gate_lines(load_config(write_config({"gate.rule": rule, "gate.bound": "lower"})))
    metrics = "accuracy, precision, recall"
    assert lines[0] == f"leak if {said} {metrics} of any method above 0.6 at the interval's lower bound"
    assert not any("WARNING" in line for line in lines)


def test_what_can_be_found_is_said_before_anything_queues(write_config: Callable[..., Path]) -> None:
    """90 members and 70 others, all of which score; two count as one."""
    levels, effect, passing, warning = gate_lines(load_config(write_config()))
    assert levels == (
        "levels for each attack, with an error of 0.05 in all: balanced accuracy of 0.6 (finds and rules out), TPR at "
        "FPR 0.01 of 0.1 (rules out), epsilon of 1 (finds)"
    )
    assert effect.startswith("With 90 members and 70 non-members scored, one attack finds a balanced accuracy of 0.7")
    assert passing.startswith("By balanced accuracy alone, a model without any leak passes with a probability of 90%")
    assert warning.startswith("WARNING: even a model without any leak will often be INCONCLUSIVE: 70 samples of a side")
    enough = {"rules": [{"metric": "balanced_accuracy", "above": 0.95}]}
    assert not any("WARNING" in line for line in gate_lines(load_config(write_config({"gate": enough}))))


def test_the_tutorials_gate_says_both(write_config: Callable[..., Path]) -> None:
    joint, levels, *_ = gate_lines(load_config(write_config({"gate": "tutorial"})))
    assert joint == "leak if all of accuracy, precision, recall of any method above 0.6"
    assert levels.startswith("levels for each attack")


@pytest.mark.parametrize(
    ("value", "keys", "said"),
    [
        ("np.zeros((8, 9, 3), 'u1')", {}, "train sample 0: image uint8 (8, 9, 3); label 7"),
        ("np.zeros(30)", {"data.preprocess": "none"}, "train sample 0: input float64 (30,); label 7"),
        ("(np.arange(2 + i % 3), np.ones(2, bool))", {"data.preprocess": "none", "data.pad": 0},
         "train sample 0: a tuple of input[0] int64 (2,) padded to (4,), input[1] bool (2,); label 7"),
        ("{'b': np.arange(2), 'a': 1.5}", {"data.preprocess": "none"},
         "train sample 0: a dictionary of a float64 (), b int64 (2,); label 7"),
    ],
)  # fmt: skip
def test_the_first_sample_of_an_own_source_is_shown(
    tmp_path: Path, write_config: Callable[..., Path], value: str, keys: dict[str, object], said: str
) -> None:
    code = f"import numpy as np\ndef make(split): return [({value}, 7) for i in range(60)]\n"
    (tmp_path / "own.py").write_text(code)
    (tmp_path / "whole.ckpt").write_bytes(one_entry(b"w"))
    own = {"data.source": "own.py:make", "data.path": None, **keys}
    config = load_config(write_config(own, checkpoint=tmp_path / "whole.ckpt"))
    assert sample_lines(config.data, make_plan(config)) == [f"sample:  {said}"]
    config = load_config(write_config(checkpoint=tmp_path / "whole.ckpt"))
    assert sample_lines(config.data, make_plan(config)) == []
