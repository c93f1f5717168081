"""What `mia-batch check` says of a run is what the run does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mia_batch.attacks.split import n_evaluated, split_rows
from mia_batch.commands.check import plan_lines
from mia_batch.settings.loading import load_config
from mia_batch.stages.plan import select_samples


@pytest.mark.parametrize("eval_fraction", [0.2, 0.32, 0.321, 0.5, 0.7])
def test_the_split_is_the_one_that_the_attacks_get(write_config: Callable[..., Path], eval_fraction: float) -> None:
    config = load_config(write_config({"attack.eval_fraction": eval_fraction}))
    selection = select_samples(config.data)
    fit, evaluated = split_rows(selection.member, eval_fraction, config.attack.seed)
    lines = plan_lines(config, selection, 1)
    assert any(line.startswith(f"attack:  fit on {len(fit)}, score {len(evaluated)}, ") for line in lines)


def test_a_fraction_of_a_sample_scores() -> None:
    assert n_evaluated(1797, 0.2) == 360
    assert n_evaluated(10_000, 0.2) == 2000


@pytest.mark.parametrize(("rule", "said"), [("all_above", "all of"), ("any_above", "any of")])
def test_the_gate_is_said_in_words(write_config: Callable[..., Path], rule: str, said: str) -> None:
    config = load_config(write_config({"gate.rule": rule, "gate.bound": "lower"}))
    line = next(line for line in plan_lines(config, select_samples(config.data), 2) if line.startswith("reduce:"))
    metrics = "accuracy, precision, recall"
    assert line == f"reduce:  leak if {said} {metrics} of any method above 0.6 at the interval's lower bound"
