"""Which training run a checkpoint is of, and in what order: known names, and whole folders of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest

from mia_batch.rundir.manifest import CheckpointOrigin
from mia_batch.rundir.trainings import NEVER, Audited, name_of, seconds, trainings

DAY = 86400.0


def made(
    name: str, day: int = 1, *, sha256: str = "", identity: str = "one", created: int = 20, **progress: int
) -> Audited:
    """A checkpoint that was written on that day of January 2030 (0: nobody knows)."""
    modified = f"2030-01-{day:02d}T00:00:00+00:00" if day else ""
    origin = CheckpointOrigin(modified=modified, **progress)
    when = f"2030-01-{created:02d}T00:00:00+00:00"
    return Audited(name.replace("/", "_"), Path("/w") / name, sha256 or name, {"of": identity}, when, origin)


def names(audits: Sequence[Audited]) -> list[list[str]]:
    """Checkpoints by training, in their order."""
    return [[str(each.path.relative_to("/w")) for each, _ in training.audits] for training in trainings(audits)]


@pytest.mark.parametrize(
    ("file", "like", "step", "sure"),
    [
        ("net-10_1875.ckpt", "net-*_*.ckpt", (10, 1875), True),
        ("net_1-3_5_breakpoint.ckpt", "net_1-*_*.ckpt", (3, 5), True),
        ("epoch=9-step=70-loss=0.21.ckpt", "epoch=*-step=*-loss=*.ckpt", (9, 70), True),
        ("net_ep3_seed2.ckpt", "net_ep*_seed2.ckpt", (3,), True),
        ("checkpoint_000500.safetensors", "checkpoint_*.safetensors", (500,), True),
        ("resnet18-9.ckpt", "resnet18-*.ckpt", (9,), False),
        ("deep10.ckpt", "deep*.ckpt", (10,), False),
        ("vgg16.ckpt", "vgg*.ckpt", (16,), False),
    ],
)
def test_what_a_name_tells(file: str, like: str, step: tuple[int, ...], sure: bool) -> None:
    found = name_of(Path("/w/a") / file)
    assert (found.like, found.step, found.sure) == (f"/w/a/{like}", step, sure)


@pytest.mark.parametrize("file", ["best.ckpt", "net-2030-01-09.ckpt", "20300109T1030.ckpt", "2030_01_09-7.ckpt"])
def test_names_that_tell_no_step(file: str) -> None:
    assert name_of(Path("/w") / file).step == ()


def test_the_folder_may_tell_the_step() -> None:
    found = name_of(Path("/w/step-500/model.ckpt"))
    assert (found.like, found.step, found.sure) == ("/w/step-*/model.ckpt", (500,), True)
    assert name_of(Path("/w/exp-1/model.ckpt")).step == ()


@pytest.mark.parametrize(
    ("iso", "expected"),
    [
        ("1970-01-02T00:00:00+00:00", DAY), ("1970-01-02T00:00:00", DAY), ("1970-01-02T00:00:00Z", DAY),
        ("1970-01-02T01:00:00+01:00", DAY), ("", NEVER), ("yesterday", NEVER),
    ],
)
def test_times(iso: str, expected: float) -> None:
    assert seconds(iso) == expected


ORDERS: dict[str, list[Audited]] = {
    "numbers, against their times": [made("net-9_5", 9), made("net-10_2", 8), made("net-10_11", 7)],
    "one number": [made("res-9", 9), made("res-10", 8), made("res-100", 7)],
    "times, against text": [made("c", 1), made("b", 2), made("a", 3)],
    "a lone number is no step": [made("vgg16", 1), made("vgg2x", 2), made("a", 3)],
    "dates are no steps": [made("n-2031-01-01", 1), made("n-2030-02-02", 2), made("n-2030-01-03", 3)],
    "what the files say, against names and times": [
        made("res-9", 9, epoch_num=1, step_num=70), made("res-8", 8, epoch_num=1, step_num=80),
        made("best", 1, epoch_num=2, step_num=1),
    ],
    "only steps in the files": [made("b", 9, step_num=9), made("a", 8, step_num=10)],
    "what not all files say is left": [made("res-8", 8, epoch_num=9), made("res-9", 9)],
    "no step: after those that are older": [made("res-9", 2), made("best", 3), made("res-10", 4), made("last", 5)],
    "no time: that of the run": [made("a", 0, created=4), made("b", 5), made("c", 0, created=6)],
    "a tie: the run's creation, then its name by numbers": [
        made("z", 1, created=2), made("a9", 1, created=3), made("a10", 1, created=3),
    ],
    "the same file again": [made("res-1", 1, sha256="1", created=1), made("res-1", 1, sha256="1", created=2)],
}  # fmt: skip


@pytest.mark.parametrize("what", ORDERS)
def test_one_training_in_its_order_however_the_runs_are_listed(what: str) -> None:
    expected = [str(each.path.relative_to("/w")) for each in ORDERS[what]]
    for shuffled in permutations(ORDERS[what]):
        assert names(shuffled) == [expected]


APART: dict[str, list[list[Audited]]] = {
    "configuration or data": [[made("net-1_9", 1), made("net-2_9", 2)], [made("net-1_9", 3, identity="two")]],
    "folders of steps": [[made("a/net-1_9", 1), made("a/net-2_9", 3)], [made("b/net-1_9", 2), made("b/net-2_9", 4)]],
    "MindSpore's second training in a folder": [[made("net-1_9", 1), made("net-2_9", 2)], [made("net_1-1_9", 3)]],
    "seeds in names": [[made("s1_epoch1", 1), made("s1_epoch2", 3)], [made("s2_epoch1", 2), made("s2_epoch2", 4)]],
    "no step, of whichever of two": [[made("net-1_9", 1)], [made("net_1-1_9", 2)], [made("a", 3), made("last", 4)]],
    "a folder that is written to again": [
        [made("net-1_9", 1, sha256="a"), made("net-2_9", 2, sha256="b"), made("net-3_9", 3, sha256="c")],
        [made("net-1_9", 4, sha256="d"), made("net-2_9", 5, sha256="e")],
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", APART)
def test_trainings_are_kept_apart(what: str) -> None:
    expected = [[str(each.path.relative_to("/w")) for each in training] for training in APART[what]]
    everything = [each for training in APART[what] for each in training]
    for seed in range(20):
        random.Random(seed).shuffle(everything)
        assert names(everything) == expected
    found = trainings(everything)
    assert len({training.id for training in found}) == len(found)


def test_a_thousand_checkpoints_keep_their_ids_when_more_come() -> None:
    audits = [made(f"net-{epoch}_9", sha256=f"{epoch}") for epoch in range(1000)]
    (before,), (after,) = trainings(audits[:-1]), trainings(audits)
    assert before.id == after.id
    assert [step for _, step in after.audits] == [(epoch, 9) for epoch in range(1000)]
