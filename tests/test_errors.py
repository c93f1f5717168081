"""A slip of the pen is answered with what was meant; anything else with nothing."""

from __future__ import annotations

import pytest

from mia_batch.errors import did_you_mean


@pytest.mark.parametrize(
    ("value", "choices", "meant"),
    [
        ("gup", ["cpu", "gpu"], "gpu"), ("rl", ["lr", "rf"], "lr"),
        ("statsu", ["run", "status", "submit"], "status"), ("LR", ["lr", "rf"], "lr"), ("c", ["C", "dual"], "C"),
        ("batch-size", ["batch_size"], "batch_size"), ("dev", ["device", "batch_size"], "device"),
        ("n_neighbours", ["n_jobs", "n_neighbors"], "n_neighbors"), ("--rnaks", ["--ranks", "--out"], "--ranks"),
    ],
)  # fmt: skip
def test_what_is_close_is_named(value: str, choices: list[str], meant: str) -> None:
    assert did_you_mean(value, choices) == f"; did you mean {meant}?"


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        ("TPU", ["GPU", "CPU"]), ("", ["a"]), ("seed", []), ("x", ["seed"]), (3, ["3"]), (None, ["none"]),
        (["seed"], ["seed"]), ("seed", ["seed", "sede"]), ("sea", ["search", "sealed"]), ("d", ["device"]),
    ],
)  # fmt: skip
def test_what_is_not_close_is_not(value: object, choices: list[str]) -> None:
    assert did_you_mean(value, choices) == ""
