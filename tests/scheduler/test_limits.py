"""A site's limits are read as sbatch reads them, and one that is below an estimate is said."""

from __future__ import annotations

import pytest

from mia_batch.scheduler.limits import limit_bytes, limit_seconds, warnings
from mia_batch.scheduler.site import Site
from mia_batch.stages.estimates import StageCost

GIB = 1 << 30


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("30", 1800), ("30:15", 1815), ("01:30:00", 5400), ("2-0", 172800), ("1-02", 93600), ("1-02:30", 95400),
        ("1-02:30:15", 95415), ("0", None), ("UNLIMITED", None), ("infinite", None), (None, None), ("1:2:3:4", None),
        ("", None), ("-1", None), ("1h", None),
    ],
)  # fmt: skip
def test_times_are_those_of_sbatch(time: str | None, seconds: int | None) -> None:
    assert limit_seconds(time) == seconds


@pytest.mark.parametrize(
    ("memory", "n_bytes"),
    [
        ("500", 500 << 20), ("500M", 500 << 20), ("16G", 16 * GIB), ("16g", 16 * GIB), ("2T", 2 << 40),
        ("1024K", 1 << 20), ("4GB", 4 * GIB), ("0", None), (None, None), ("much", None), ("1.5G", None),
    ],
)  # fmt: skip
def test_memory_is_that_of_sbatch(memory: str | None, n_bytes: int | None) -> None:
    assert limit_bytes(memory) == n_bytes


FOUND = [
    StageCost("extract", None, GIB, "for each of 8 rank(s)", "", at_least=True),
    StageCost("attack", 7200.0, 2 * GIB, "on 4 core(s)", ""),
    StageCost("reduce", 60.0, GIB, "on 1 core", ""),
]


def lines_of(**stages: object) -> list[str]:
    return warnings(Site.model_validate(stages), FOUND)


def test_limits_that_hold_are_not_spoken_of() -> None:
    assert lines_of() == []
    wide = {"time": "1-0", "memory": "64G"}
    assert lines_of(extract={**wide, "tasks_per_node": 8}, attack=wide, reduce=wide) == []


def test_memory_of_a_node_counts_its_ranks() -> None:
    assert lines_of(extract={"memory": "4G", "tasks_per_node": 4, "nodes": 2}) == []
    assert lines_of(extract={"memory": "4G", "tasks_per_node": 8, "time": "1"}) == [
        "site: extract.memory: 4G of a node is below the estimate, at least 8.00 GiB"
    ]


def test_each_limit_that_is_too_small_is_a_line() -> None:
    assert lines_of(attack={"time": "01:00:00", "memory": "1G"}, reduce={"time": "0:30"}) == [
        "site: attack.time: 01:00:00 is below the estimate, about 2.0 h: the job will go back to the queue and go on",
        "site: attack.memory: 1G of a node is below the estimate, about 2.00 GiB",
        "site: reduce.time: 0:30 is below the estimate, about 60 s",
    ]
