"""Estimates: from what is known they follow by arithmetic, and what is not known is said to be so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import a_manifest, make_run

from mia_batch.attacks.blind import blind_rows
from mia_batch.errors import InputError
from mia_batch.network.requirements import RANK_BYTES
from mia_batch.rundir.identity import network_identity
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples
from mia_batch.stages.attack_settings import splits_of
from mia_batch.stages.estimates import (
    ATTACK_START_S,
    Speed,
    _tasks,
    attack_estimate,
    column_widths,
    earlier_speed,
    estimate_lines,
    estimates,
    extract_estimate,
    n_classes_of,
    reduce_estimate,
    runs_around,
    shapes_alone,
)
from mia_batch.stages.plan import look_at
from mia_batch.workers.open_executor import memory_of, workers_within

LAUNCH: dict[str, Any] = {
    "stage": "extract", "started": "2030-01-01T00:00:00+00:00", "host": "n1", "rank_size": 4, "n_nodes": 1,
    "rows_done": 1000, "rows_done_after": 5000, "seconds": 12.0, "forward_seconds": 10.0, "memory": 700 << 20,
}  # fmt: skip
METHODS = [{"method": "lr"}, {"method": "rf", "params": {"n_estimators": [20]}}, {"method": "threshold_loss"}]
MEMBER = np.repeat(np.array([1, 0], dtype=np.int8), 300)


def attack_of(**more: Any) -> AttackConfig:
    return AttackConfig.model_validate({"methods": METHODS, **more})


# --- extract ---------------------------------------------------------------------------------------------------------


def test_without_an_earlier_run_the_time_is_not_known() -> None:
    found = extract_estimate(800, 8, batch_bytes=1 << 20, checkpoint_bytes=10 << 20)
    assert found.seconds is None
    assert found.at_least
    assert found.memory == RANK_BYTES + (21 << 20)
    (line,) = estimate_lines([found])
    assert line.startswith("estimate: extract: time not known before a run, at least 0.44 GiB for each of 8 rank(s) (")


def test_with_one_it_is_loading_and_rows_by_rate() -> None:
    speed = Speed(100.0, 2.0, 700 << 20, "one (4000 rows on 4 rank(s) of n1)")
    found = extract_estimate(8000, 8, batch_bytes=0, checkpoint_bytes=0, speed=speed)
    assert (found.seconds, found.memory, found.at_least) == (12.0, 700 << 20, False)
    assert "100 rows/s of a rank in one (4000 rows on 4 rank(s) of n1)" in estimate_lines([found])[0]
    old = extract_estimate(8000, 8, batch_bytes=0, checkpoint_bytes=0, speed=Speed(100.0, 0.0, None, "one"))
    assert (old.memory, old.at_least) == (RANK_BYTES, True)


def runs_with(folder: Path, *launches: dict[str, Any], **changes: Any) -> RunPaths:
    manifest = a_manifest(**changes).model_copy(update={"launches": launches})
    return make_run(RunPaths(folder), manifest)


def test_a_speed_is_that_of_the_same_network(tmp_path: Path) -> None:
    runs_with(tmp_path / "same", LAUNCH, **{"attack.seed": 7, "digests.model.checkpoint": "9" * 64})
    runs_with(tmp_path / "other", LAUNCH | {"rows_done_after": 90000}, **{"data.image_size": [64, 64]})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/run.json").write_text("{")
    speed = earlier_speed(a_manifest(), runs_around(tmp_path))
    assert speed == Speed(100.0, 2.0, 700 << 20, "same (4000 rows on 4 rank(s) of n1)")
    assert earlier_speed(a_manifest(**{"extract.batch_size": 8}), runs_around(tmp_path)) is None
    assert earlier_speed(a_manifest(), runs_around(tmp_path / "same")) == speed
    assert earlier_speed(a_manifest(), runs_around(tmp_path / "nowhere")) is None


def test_the_newest_of_enough_rows_counts_else_that_of_most(tmp_path: Path) -> None:
    later = LAUNCH | {"started": "2031-01-01T00:00:00+00:00", "seconds": 22.0, "forward_seconds": 20.0}
    few = LAUNCH | {"started": "2032-01-01T00:00:00+00:00", "rows_done_after": 1010, "forward_seconds": 0.1}
    fewer = few | {"rows_done_after": 1005}
    speeds = [
        earlier_speed(a_manifest(), [runs_with(tmp_path / str(i), *launches)])
        for i, launches in enumerate([(later, LAUNCH), (LAUNCH, few), (fewer, few, fewer)])
    ]
    assert [speed.rows_per_second for speed in speeds if speed] == [50.0, 100.0, 25.0]


@pytest.mark.parametrize(
    "launch",
    [
        {}, LAUNCH | {"seconds": 0}, LAUNCH | {"rows_done_after": 1000}, LAUNCH | {"rank_size": 0},
        LAUNCH | {"stage": "import"}, LAUNCH | {"seconds": "x"}, {k: v for k, v in LAUNCH.items() if k != "seconds"},
    ],
)  # fmt: skip
def test_a_launch_that_tells_nothing_is_passed_over(tmp_path: Path, launch: dict[str, Any]) -> None:
    assert earlier_speed(a_manifest(), [runs_with(tmp_path / "run", launch)]) is None


def test_a_launch_of_a_version_before_counts_with_its_loading(tmp_path: Path) -> None:
    launch = {key: value for key, value in LAUNCH.items() if key not in ("forward_seconds", "memory")}
    assert earlier_speed(a_manifest(), [runs_with(tmp_path / "run", launch)]) == Speed(
        4000 / 4 / 12.0, 0.0, None, "run (4000 rows on 4 rank(s) of n1)"
    )


def test_which_samples_is_no_matter_of_speed() -> None:
    one = network_identity(a_manifest())
    block = [{"split": "train", "num_samples": 9, "range": None, "indices": None}]
    for changes in ({"data.members": block}, {"digests.data:train.bin": "7" * 64}, {"data.label": "coarse"}):
        assert network_identity(a_manifest(**changes)) == one
    for changes in ({"model.kwargs": {"num_classes": 9}}, {"data.source": "a.b:c"}, {"extract.device": "CPU"}):
        assert network_identity(a_manifest(**changes)) != one


# --- attack ----------------------------------------------------------------------------------------------------------


def test_shapes_alone_make_the_tasks_and_take_the_memory_of_real_samples() -> None:
    attack, rng = attack_of(), np.random.default_rng(1)
    widths = column_widths(attack, 10)
    columns = {name: rng.normal(size=(600, width)) for name, width in widths.items()}
    real = make_samples(MEMBER, attack, **columns)
    shapes = shapes_alone(MEMBER, splits_of(attack, MEMBER), widths, n_classes=10)
    assert shapes.known == real.known
    ours, theirs = _tasks(attack, shapes), _tasks(attack, real)
    assert {name: [(t.key, t.cost, t.memory) for t in its] for name, its in ours.items()} == {
        name: [(t.key, t.cost, t.memory) for t in its] for name, its in theirs.items()
    }
    tasks = [task for its in ours.values() for task in its]
    assert memory_of(shapes, tasks) == memory_of(real, tasks)


def test_the_workers_are_those_that_the_search_would_start() -> None:
    attack = attack_of(memory_gib=1.2)
    splits = splits_of(attack, MEMBER)
    samples = shapes_alone(MEMBER, splits, column_widths(attack, 10), n_classes=10)
    tasks = [task for its in _tasks(attack, samples).values() for task in its]
    for n_jobs in (1, 2, 8):
        n_workers = workers_within(1.2, n_jobs, samples, tasks)
        found = attack_estimate(attack, MEMBER, splits, 10, n_jobs=n_jobs)
        shared, each = memory_of(samples, tasks)
        assert found.memory == shared + n_workers * each <= 1.2 * 2**30
        assert found.where == f"on {n_workers} core(s)"
        work = sum(task.cost for task in tasks) / n_workers
        assert found.seconds == pytest.approx(ATTACK_START_S + max(work, max(task.urgency for task in tasks)))


@pytest.mark.parametrize("memory_gib", [0.001, 0.3, 0.5])
def test_a_budget_that_holds_no_worker_is_said_before(memory_gib: float) -> None:
    attack = attack_of(memory_gib=memory_gib)
    splits = splits_of(attack, MEMBER)
    samples = shapes_alone(MEMBER, splits, column_widths(attack, 10), n_classes=10)
    with pytest.raises(InputError) as refused:
        workers_within(memory_gib, 2, samples, [task for its in _tasks(attack, samples).values() for task in its])
    found = attack_estimate(attack, MEMBER, splits, 10, n_jobs=2)
    assert found.warning.split()[:6] == str(refused.value).split()[:6]
    assert estimate_lines([found])[-1] == f"WARNING: {found.warning}"


def test_jobs_of_their_own_take_as_long_as_the_longest() -> None:
    attack = attack_of()
    splits = splits_of(attack, MEMBER)
    alone, together = (attack_estimate(attack, MEMBER, splits, 10, n_jobs=1, alone=alone) for alone in (True, False))
    assert alone.seconds is not None
    assert together.seconds is not None
    assert ATTACK_START_S < alone.seconds < together.seconds


def test_on_a_dask_cluster_the_time_is_that_of_its_workers() -> None:
    attack = attack_of(backend="dask", scheduler="tcp://a:1")
    found = attack_estimate(attack, MEMBER, splits_of(attack, MEMBER), 10, n_jobs=2)
    assert found.seconds is None
    assert "of one core, shared by the scheduler's workers" in found.basis


def test_many_rows_are_estimated_without_their_memory() -> None:
    attack = attack_of(max_rows=1000)
    member = np.repeat(np.array([1, 0], dtype=np.int8), 100_000)
    samples = shapes_alone(member, splits_of(attack, member), column_widths(attack, 1000), n_classes=1000)
    assert sum(column.base.nbytes for column in samples.columns.values() if column.base is not None) < 1000
    found = attack_estimate(attack, member, samples.splits, 1000, n_jobs=1)
    assert found.memory > 8 * len(member) * sum(column_widths(attack, 1000).values())


def test_the_baseline_of_imports_takes_a_row_for_each_class() -> None:
    """As `memory_of` has it of the samples that the stage makes, where no statistics of inputs are known."""
    attack, member = attack_of(max_rows=1000), np.repeat(np.array([1, 0], dtype=np.int8), 100_000)
    splits, label = splits_of(attack, member), np.arange(len(member)) % 100
    known, unknown = (
        attack_estimate(attack, member, splits, 100, n_jobs=1, inputs_known=each).memory for each in (True, False)
    )
    width = column_widths(attack, 100)["blind"]
    assert known - unknown == pytest.approx(3 * 8 * len(member) * width, rel=0.05)  # twice held, once by the worker
    samples = shapes_alone(member, splits, column_widths(attack, 100, inputs_known=False), n_classes=100)
    assert samples.columns["blind"].row.shape == blind_rows(label, None).row.shape  # type: ignore[union-attr]


# --- reduce, and all of them -----------------------------------------------------------------------------------------


def test_reduce_grows_with_the_rows() -> None:
    few, many = reduce_estimate(1000), reduce_estimate(101_000)
    assert few.seconds is not None
    assert many.seconds is not None
    assert many.seconds - few.seconds == pytest.approx(16.0)
    assert many.memory > few.memory


@pytest.mark.parametrize(
    ("stated", "n_classes"), [(7, 7), (1, 2), ("7", 3), (True, 3), (0, 3), (None, 3), ([7], 3), (2.0, 3)]
)
def test_classes_are_as_the_config_says_or_the_labels(
    write_config: Callable[..., Path], stated: Any, n_classes: int
) -> None:
    config = load_config(write_config({"model.kwargs": {"num_classes": stated}}))
    assert n_classes_of(config, np.array([0, 2, 1])) == n_classes


def test_a_function_gives_columns_of_its_own(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config({"model.kwargs": {"num_classes": 7}, "model.output": "package:function"}))
    assert config.model.n_columns() is None
    assert n_classes_of(config, np.array([0, 2, 1])) == 3
    assert n_classes_of(config, np.array([0, 0])) == 2


def test_every_stage_has_a_line(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config())
    found = estimates(config, look_at(config.data)[0], ranks=2, n_jobs=2)
    lines = estimate_lines(found)
    assert [line.split(": ")[1] for line in lines] == ["extract", "attack", "reduce"]
    assert all(line.startswith("estimate: ") for line in lines)
    assert not any(math.isnan(each.seconds or 0) for each in found)
