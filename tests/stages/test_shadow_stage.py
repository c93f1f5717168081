"""Plans of reference models in a folder, and their trainings, in this process."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import write_config, write_training

ms = pytest.importorskip("mindspore")

from mia_batch.data.records import FORMATS, RecordSource  # noqa: E402
from mia_batch.errors import InputError  # noqa: E402
from mia_batch.locks import in_use  # noqa: E402
from mia_batch.network import train as training  # noqa: E402
from mia_batch.network.checkpoint import load_network  # noqa: E402
from mia_batch.network.preprocess import Preprocess  # noqa: E402
from mia_batch.process.exit_codes import BAD_INPUT, OK, RESUME, run_stoppable  # noqa: E402
from mia_batch.process.stop import StopRequest  # noqa: E402
from mia_batch.rundir.reference_files import reference_digests  # noqa: E402
from mia_batch.rundir.shadows import ShadowPaths, ShadowPlan, read_plan, trained_here, write_plan  # noqa: E402
from mia_batch.settings.loading import load_config  # noqa: E402
from mia_batch.settings.schema import Config  # noqa: E402
from mia_batch.stages import shadows  # noqa: E402
from mia_batch.stages.estimates import training_estimates  # noqa: E402


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_training(tmp_path)


def load(path: Path) -> Config:
    return load_config(path, need=("data",))


def planned(path: Path, count: int = 2, seed: int | None = None, out: str = "out") -> ShadowPlan:
    config = load(path)
    return shadows.claim_plan(config, paths_of(path, out), shadows.pool_of(config), count, seed)


def paths_of(path: Path, out: str = "out") -> ShadowPaths:
    return ShadowPaths(path.parent / out)


def train(path: Path, number: int, out: str = "out") -> int:
    """jobs/shadows.py, in this process."""
    args = argparse.Namespace(
        config=str(path), changes=[], out=str(path.parent / out), only=number, brief=True, quiet=False, verbose=False
    )
    return run_stoppable(shadows.run_shadow_stage, args)


def refused(path: Path, *args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        planned(path, *args, **options)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_names_every_sample_once_and_says_what_it_is_of(config_file: Path) -> None:
    plan = planned(config_file, 4, seed=7)
    assert {*zip(plan.split, plan.sample_index, strict=True)} == {(s, i) for s in ("train", "test") for i in range(42)}
    assert plan.models.included.shape == (4, 84)
    with np.load(paths_of(config_file).plan) as file:
        found = {name: file[name] for name in ("included", "split", "sample_index", "seeds")}
    for name, array in plan.arrays().items():
        np.testing.assert_array_equal(found[name], array)
    record = json.loads(paths_of(config_file).record.read_text())
    assert (record["count"], record["seed"], record["samples"], record["sha256"]) == (4, 7, 84, plan.digest())
    assert {"SHA-256 of train.bin", "SHA-256 of test.bin", "train.epochs"} <= record["identity"].keys()


def test_the_same_call_again_writes_nothing(config_file: Path) -> None:
    first = planned(config_file, 4, seed=7)
    before = {file: file.stat().st_mtime_ns for file in paths_of(config_file).root.iterdir()}
    for seed in (7, None):
        assert planned(config_file, 4, seed).digest() == first.digest()
    attack = {"seed": 5}
    again = write_config(config_file.parent, "other.yaml", attack=attack, train={"seed": 9, "checkpoint_every": 2})
    assert planned(again, 4).digest() == first.digest()
    assert {file: file.stat().st_mtime_ns for file in paths_of(config_file).root.iterdir()} == before


def test_a_target_with_the_same_pool_has_the_same_plan(config_file: Path) -> None:
    """Who is a member of the target is of no concern to its references."""
    first = planned(config_file, 2)
    swapped = {"members": {"split": "test"}, "nonmembers": {"split": "train"}}
    assert planned(write_config(config_file.parent, "b.yaml", data=swapped), 2).digest() == first.digest()


def test_a_larger_count_keeps_the_first_pairs(config_file: Path) -> None:
    small = planned(config_file, 2, seed=3)
    large = planned(config_file, 6)
    assert large.first(2).digest() == small.digest()
    assert large.digest() == planned(config_file, 6, seed=3, out="at_once").digest()
    assert json.loads(paths_of(config_file).record.read_text())["count"] == 6


def test_a_kill_between_the_two_files_leaves_what_the_next_call_goes_on_from(config_file: Path) -> None:
    paths = paths_of(config_file)
    planned(config_file, 2)
    record = paths.record.read_bytes()
    paths.record.unlink()
    assert planned(config_file, 2).models.n_references == 2  # killed when it was new
    large = planned(config_file, 4)
    paths.record.write_bytes(record)  # killed when it grew
    assert planned(config_file, 2).models.n_references == 2
    assert planned(config_file, 4).digest() == large.digest()


@pytest.mark.parametrize("count", [-2, 0, 1, 3, 1002])
def test_a_count_without_pairs_or_names_is_refused(config_file: Path, count: int) -> None:
    rule = f"--count: must be an even number from 2 to 1000, as models come in pairs, got {count}"
    with pytest.raises(InputError, match=rule):
        shadows.models_to_train(load(config_file), paths_of(config_file), count)
    assert not paths_of(config_file).root.exists()


def test_another_config_seed_or_smaller_count_is_refused(config_file: Path) -> None:
    planned(config_file, 4, seed=7)
    assert "--seed was 7 and is now 8" in refused(config_file, 4, seed=8)
    assert "--count was 4 and is now 2, which may be larger alone" in refused(config_file, 2)
    other = write_config(config_file.parent, "b.yaml", train={"epochs": 3})
    assert "train.epochs was 12 and is now 3; choose another --out" in refused(other, 4)
    fewer = write_config(config_file.parent, "c.yaml", data={"nonmembers": {"split": "test", "num_samples": 9}})
    assert "the content of members and non-members has changed" in refused(fewer, 4)
    np.save(config_file.parent / "groups.npy", np.arange(42) // 2)
    group = {"group": {"train": "groups.npy", "test": "groups.npy"}}
    grouped = write_config(config_file.parent, "d.yaml", data=group)
    assert "data.group is read now and was not" in refused(grouped, 4)


def test_of_two_plans_at_once_the_second_is_refused_or_goes_on_from_the_first(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, draw = planned(config_file, 4, out="alone"), shadows.drawn

    def after(other: dict[str, Any]) -> None:
        """Let another command make the whole plan while this one draws its own."""

        def drawn_late(*args: Any) -> ShadowPlan:
            monkeypatch.setattr(shadows, "drawn", draw)
            planned(config_file, **other)
            return draw(*args)

        monkeypatch.setattr(shadows, "drawn", drawn_late)

    after({"seed": 2, "out": "seeds"})
    assert "--seed was 2 and is now 1" in refused(config_file, 4, 1, out="seeds")
    after({"count": 2, "out": "counts"})
    assert planned(config_file, 4, out="counts").digest() == alone.digest()
    after({"count": 6, "out": "fewer"})
    assert "--count was 6 and is now 4" in refused(config_file, 4, out="fewer")


def test_a_plan_is_written_under_its_lock(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def write(paths: ShadowPaths, *what: Any) -> ShadowPlan:
        held.append(in_use(paths.plan_lock))
        return write_plan(paths, *what)

    monkeypatch.setattr(shadows, "write_plan", write)
    for count in (2, 4, 4):
        planned(config_file, count)
    assert held == [True, True]
    assert not in_use(paths_of(config_file).plan_lock)


def test_files_that_are_no_plan_are_refused_and_kept(config_file: Path) -> None:
    paths = paths_of(config_file)
    planned(config_file, 2)
    good, record = paths.plan.read_bytes(), paths.record.read_text()
    paths.plan.write_bytes(b"precious")
    assert "plan.npz: must be a plan that mia-batch has written" in refused(config_file, 2)
    paths.record.unlink()
    assert "plan.npz: must be a plan that mia-batch has written" in refused(config_file, 2)
    assert paths.plan.read_bytes() == b"precious"
    other = planned(config_file, 2, seed=5, out="other")
    write_plan(paths, other, json.loads(record))
    paths.record.write_text(record)
    assert "must be the plan of plan.json, got another" in refused(config_file, 2)
    paths.record.unlink()
    assert "must not be there without plan.json" in refused(config_file, 2)
    paths.plan.write_bytes(good)
    for text in ("{}", "[]", "{", record.replace('"schema": 1', '"schema": 2')):
        paths.record.write_text(text)
        assert "plan.json: must be a plan's record" in refused(config_file, 2)


def test_a_pool_too_small_for_pairs_is_refused(config_file: Path) -> None:
    one = {"members": {"split": "train", "num_samples": 1}, "nonmembers": {"split": "test", "num_samples": 1}}
    path = write_config(config_file.parent, data=one)
    assert "must be enough that each model has some, got none for model" in refused(path, 20)
    assert not paths_of(config_file).root.exists()


def test_groups_and_equal_inputs_stay_together(config_file: Path) -> None:
    folder = config_file.parent
    np.save(folder / "train.npy", np.where(np.arange(42) < 6, 5, -1))
    np.save(folder / "test.npy", np.where(np.arange(42) < 2, 5, -1))
    records = {split: np.fromfile(folder / f"{split}.bin", np.uint8).reshape(42, 3074) for split in ("train", "test")}
    records["test"][30, 2:] = records["train"][30, 2:]  # one input in two splits
    records["test"][0, 2:] = records["train"][31, 2:]  # joins the group
    records["test"].tofile(folder / "test.bin")
    path = write_config(folder, data={"group": {"train": "train.npy", "test": "test.npy"}})
    plan = planned(path, 40)
    named = zip(plan.split, plan.sample_index, strict=True)
    column = {name: plan.models.included[:, n] for n, name in enumerate(named)}
    group = [("train", i) for i in (*range(6), 31)] + [("test", 0), ("test", 1)]
    for together in (group, [("train", 30), ("test", 30)]):
        assert len({column[each].tobytes() for each in together}) == 1
    assert len({each.tobytes() for each in column.values()}) == 84 - 8 - 1


TOKENS = """
import numpy as np
def make(split):
    ids = [np.full(3 + i % 5, i % 20) for i in range(30)]
    return [(each, i % 3) for i, each in enumerate(ids)]
"""


def test_arrays_of_several_lengths_are_planned_and_equal_ones_stay_together(config_file: Path) -> None:
    folder = config_file.parent
    (folder / "tokens.py").write_text(TOKENS)
    path = folder / "tokens.yaml"
    path.write_text(
        "model: {factory: net.py:build, checkpoint: out.ckpt}\n"
        "data: {source: tokens.py:make, preprocess: none, pad: 0, members: {split: train}, nonmembers: {split: test}}\n"
        "attack: {methods: [{method: correctness}]}\n"
    )
    plan = planned(path, 40)
    assert len({column.tobytes() for column in plan.models.included.T}) == 20


# --- the trainings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which samples the steps of training read."""
    seen: list[tuple[str, int]] = []
    run_epoch = training.Trainer.run_epoch

    def run(self: training.Trainer, stop: StopRequest) -> tuple[float, float]:
        inner = self.source.read

        def reading(split: str, index: np.ndarray, form: Any = None) -> Any:
            seen.extend((split, int(i)) for i in index)
            return inner(split, index, form)

        monkeypatch.setattr(self.source, "read", reading)
        found = run_epoch(self, stop)
        monkeypatch.setattr(self.source, "read", inner)
        return found

    monkeypatch.setattr(training.Trainer, "run_epoch", run)
    return seen


def test_a_model_learns_its_samples_by_heart_and_sees_no_other(config_file: Path, read: list[tuple[str, int]]) -> None:
    path = write_config(config_file.parent, train={"epochs": 30})
    plan, paths = planned(path, 2), paths_of(config_file)
    assert train(path, 1) == OK
    chosen = plan.models.included[1]
    assert set(read) == {*zip(plan.split[chosen].tolist(), plan.sample_index[chosen].tolist(), strict=True)}
    record = json.loads((paths.root / "shadow_001.ckpt.json").read_text())
    assert record["seed"] == int(plan.models.seeds[1])
    assert record["accuracy"] == 1.0
    assert record["test_accuracy"] == pytest.approx(accuracy_by_hand(path, plan, 1, ~chosen), abs=1e-9)
    assert shadows.result_line(paths, plan, 1).startswith(
        f"shadow_001.ckpt: accuracy 1.0000 on the {chosen.sum()} samples it was trained on, 0."
    )
    pool = shadows.pool_of(load(path))
    trained = shadows.Trained(load(path), paths, pool, plan)
    assert [number in trained for number in (0, 1)] == [False, True]


def accuracy_by_hand(path: Path, plan: ShadowPlan, number: int, rows: np.ndarray) -> float:
    config = load(path)
    model = config.model.model_copy(update={"checkpoint": paths_of(path).checkpoint(number)})
    network = load_network(model, (8, 8)).set_train(False)
    source = RecordSource(path.parent, FORMATS["cifar100"], "fine")
    right = 0
    for split, index in zip(plan.split[rows], plan.sample_index[rows], strict=True):
        inputs, label = source.read(str(split), np.array([index]))
        images = np.stack(list(Preprocess((8, 8), config.data.mean, config.data.std).resize(inputs.columns[0])))
        x = (images.astype(np.float64) / 255 - config.data.mean) / config.data.std
        logits = network(ms.Tensor(x.transpose(0, 3, 1, 2).astype(np.float32))).asnumpy()
        right += int(logits.argmax() == label[0])
    return right / int(rows.sum())


def test_a_training_that_is_there_is_not_repeated_and_a_stopped_one_goes_on(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_config(config_file.parent, train={"epochs": 3, "checkpoint_every": 1})
    for out in ("out", "unbroken"):
        planned(path, 2, out=out)
    assert train(path, 0, "unbroken") == OK
    looks = iter([False] * 4 + [True] * 99)
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", lambda self: next(looks))
        assert train(path, 0) == RESUME
    paths = paths_of(path)
    assert not paths.checkpoint(0).exists()
    assert train(path, 0) == OK
    assert paths.checkpoint(0).read_bytes() == paths_of(path, "unbroken").checkpoint(0).read_bytes()
    before = {file: file.stat().st_mtime_ns for file in paths.root.rglob("*") if file.suffix != ".lock"}
    assert train(path, 0) == OK
    assert {file: file.stat().st_mtime_ns for file in paths.root.rglob("*") if file.suffix != ".lock"} == before


def test_models_differ_in_samples_and_in_seed(config_file: Path) -> None:
    plan, config = planned(config_file, 4), load(config_file)
    own = [shadows.shadow_config(config, paths_of(config_file), plan, number) for number in range(4)]
    assert len({each.train.seed for each in own}) == 4
    assert [block.indices for block in own[0].data.members] == [block.indices for block in own[1].data.nonmembers]
    shadows.write_samples(paths_of(config_file), plan, 0)
    for number, block in enumerate(own[0].data.members):
        assert block.indices is not None
        chosen = plan.models.included[0] & (plan.split == block.split)
        np.testing.assert_array_equal(np.load(block.indices), plan.sample_index[chosen])
        assert block.indices.name == f"shadow_000_{number}.npy"


def test_what_cannot_be_trained_is_one_line(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(number: int, path: Path = config_file) -> str:
        assert train(path, number) == BAD_INPUT
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    assert "plan.json: must be there; mia-batch shadows plans before it trains" in line(0)
    planned(config_file, 2)
    for number in (-1, 2):
        assert f"--only: must be from 0 to 1, got {number}" in line(number)
    other = write_config(config_file.parent, "b.yaml", train={"epochs": 3})
    assert "holds other models: train.epochs was 12 and is now 3" in line(0, other)
    paths_of(config_file).checkpoint(0).write_bytes(b"precious")
    assert "got one not written by it" in line(0)
    assert paths_of(config_file).checkpoint(0).read_bytes() == b"precious"
    assert read_plan(paths_of(config_file)).models.n_references == 2


def test_who_comes_second_waits_for_the_process_that_trains_a_model(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths, waited = paths_of(config_file), list[float]()
    planned(config_file, 2)
    with trained_here(paths, 0) as alone, monkeypatch.context() as patch:
        assert alone
        patch.setattr(StopRequest, "__bool__", lambda self: True)
        assert train(config_file, 0) == RESUME
    other = trained_here(paths, 0)
    assert other.__enter__()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            other.__exit__(None, None, None)

    monkeypatch.setattr(shadows.time, "sleep", sleep)
    assert train(config_file, 0) == OK
    assert waited == [shadows.WAIT_SECONDS] * 3
    assert paths.checkpoint(0).exists()


def test_the_section_names_the_folder_and_loads_as_it_is_printed(config_file: Path) -> None:
    lines = shadows.config_lines(ShadowPaths(config_file.parent / 'a "b" [1]'), 4)
    path = config_file.with_name("with.yaml")
    path.write_text(config_file.read_text() + "\n".join(lines) + "\n")
    for config in (load(path), audited(config_file, 4)):
        assert config.references is not None
        assert config.references.n_references == 4
    assert load(path).references.shadows == config_file.parent / 'a "b" [1]'  # type: ignore[union-attr]


# --- as an audit's references ----------------------------------------------------------------------------------------


def audited(path: Path, count: int, out: str = "out", **changes: Any) -> Config:
    words = [*shadows.shadow_changes(paths_of(path, out).root, count), *(f"{key}={changes[key]}" for key in changes)]
    return load_config(path, need=("data",), changes=words)


def test_an_audit_takes_the_first_models_of_a_plan_and_extends_a_smaller_one(config_file: Path) -> None:
    whole = planned(config_file, 4, seed=7)
    record = paths_of(config_file).record.read_bytes()
    for count in (2, 4):
        models = shadows.models_of_audit(audited(config_file, count))
        assert models is not None
        assert models.plan.digest() == whole.first(count).digest()
        assert models.missing == tuple(range(count))
        digests = reference_digests(audited(config_file, count).references)
        assert digests == {"references.shadows": whole.first(count).digest()}
    assert paths_of(config_file).record.read_bytes() == record
    assert reference_digests(audited(config_file, 6).references) == {}
    assert shadows.models_of_audit(audited(config_file, 6), dry_run=True) is not None
    assert paths_of(config_file).record.read_bytes() == record
    larger = shadows.models_of_audit(audited(config_file, 6))
    assert larger is not None
    assert larger.plan.first(4).digest() == whole.digest()
    assert shadows.models_of_audit(load(config_file)) is None


def test_an_audit_refuses_models_of_another_training_and_those_that_are_not_trained(config_file: Path) -> None:
    planned(config_file, 2)
    with pytest.raises(InputError, match=r"references.shadows: holds other models: train.epochs was 12 and is now 3; "):
        shadows.models_of_audit(audited(config_file, 2, **{"train.epochs": 3}))
    assert train(config_file, 0) == OK
    config = audited(config_file, 2)
    with pytest.raises(InputError, match=r"shadow_001.ckpt: references.shadows\[1\]: must be trained, got 1 of 2 that"):
        shadows.refuse_untrained(config, reference_digests(config.references))
    assert train(config_file, 1) == OK
    shadows.refuse_untrained(config, reference_digests(config.references))
    (one, two) = shadows.training_launches(config)
    assert (one["stage"], one["model"], one["epochs"]) == ("shadows", "references.shadows[0]", 12)
    assert one["sha256"] != two["sha256"]
    paths = paths_of(config_file)
    paths.checkpoint(1).write_bytes(paths.checkpoint(0).read_bytes())
    with pytest.raises(InputError, match="must be as training wrote it"):
        shadows.refuse_untrained(config, reference_digests(config.references))
    (paths.root / "shadow_001.ckpt.json").unlink()
    with pytest.raises(InputError, match="got one not written by it"):
        shadows.models_of_audit(config)


def test_the_time_of_a_training_is_that_of_one_that_is_there(config_file: Path) -> None:
    models = shadows.models_of_audit(audited(config_file, 4))
    assert models is not None
    (unknown,) = training_estimates(audited(config_file, 4), models)
    assert (unknown.stage, unknown.seconds, unknown.at_least) == ("shadows", None, True)
    assert train(config_file, 2) == OK
    record = paths_of(config_file).root / "shadow_002.ckpt.json"
    told = json.loads(record.read_text())
    assert told["epochs_timed"] == 12
    assert told["samples"] == models.plan.models.included[2].sum()
    record.write_text(json.dumps(told | {"seconds": 6.0, "epochs_timed": 3, "samples": 10}))
    config = audited(config_file, 4)
    models = shadows.Models(models.paths, models.plan, (0, 1, 3))
    (known,) = training_estimates(config, models)
    largest = models.plan.models.included.sum(axis=1).max()
    assert known.seconds == pytest.approx(6.0 / 3 / 10 * 12 * largest)
    assert known.where == "for each of 3 model(s)"
    assert "shadow_002.ckpt: 3 epochs of 10 samples in 6 s" in known.basis
    other = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 5})})
    assert training_estimates(other, models)[0].seconds is None
    assert training_estimates(config, shadows.Models(models.paths, models.plan, ())) == []
