"""A campaign of faults: it tells each outcome from the others, and a short one of every HDF5 file finds nothing bad."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO / "tests" / "faults"))

from hdf5_campaign import (  # noqa: E402
    CODE,
    DIFFERENT,
    HANG,
    MEMORY,
    REFUSED,
    SAME,
    TRACEBACK,
    Campaign,
    NotHereError,
    Target,
    run_target,
)

DEEDS = {  # what the command below does with a file of this content
    "good": SAME, "refuse": REFUSED, "raise": TRACEBACK, "crash": TRACEBACK, "sleep": HANG, "grow": MEMORY,
    "other": DIFFERENT, "fail": CODE, "quiet": CODE,
}  # fmt: skip


def command(folder: Path) -> tuple[int, str]:
    deed = (folder / "file").read_text()
    if deed == "refuse":
        print("mia-batch: file: must be good, got refuse")
    if deed == "raise":
        raise RuntimeError
    if deed == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if deed == "sleep":
        time.sleep(60)
    if deed == "grow":
        print(len(b"x" * (150 << 20)))
    code = {"refuse": 2, "quiet": 2, "fail": 1}.get(deed, 0)
    return code, "other" if deed == "other" else "the result"


def writes(deed: str) -> object:
    return lambda path, _rng: path.write_text(deed)


@pytest.mark.parametrize("deed", sorted(DEEDS))
def test_every_outcome_is_told_from_the_others(tmp_path: Path, deed: str) -> None:
    target = Target("t", "file", lambda folder: writes("good")(folder / "file", None), command, {"f": writes(deed)})
    (case,) = run_target(target, 1, 0, kept=tmp_path, more_seconds=0.2 if deed == "sleep" else 30)
    assert case.outcome == DEEDS[deed], case
    campaign = Campaign([case])
    assert bool(campaign.bad) == (DEEDS[deed] not in (SAME, REFUSED)) == any(tmp_path.iterdir())
    assert campaign.table().splitlines()[-1].split()[:2] == ["all", "1"]


def test_memory_is_that_of_a_helper_too_and_not_what_the_campaign_holds() -> None:
    """A helper that takes 150 MiB when its file says so, and gives them back."""
    code = "for line in open(0): print(len(b'x' * (int(line) << 20)), flush=True)"
    helper = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    held = [b"x" * (200 << 20)]

    def ask(folder: Path) -> tuple[int, str]:
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.write((folder / "file").read_text() + "\n")
        helper.stdin.flush()
        helper.stdout.readline()
        held.clear()
        return 0, ""

    faults = {f"{size}": writes(f"{size}") for size in (1, 150)}
    target = Target("t", "file", lambda folder: writes("1")(folder / "file", None), ask, faults)  # type: ignore[operator]
    with helper:
        cases = list(run_target(target, 2, 0, between=lambda: helper))
        helper.terminate()
    assert {case.fault: case.outcome for case in cases} == {"1": SAME, "150": MEMORY}


def test_values_that_nothing_vouches_for_may_change_the_result() -> None:
    def prepare(folder: Path) -> None:
        (folder / "file").write_text("good")

    target = Target("t", "file", prepare, command, {"f": writes("other")}, vouched=False)
    assert [case.outcome for case in run_target(target, 1, 0)] == [SAME]


def test_faults_come_by_their_seed_and_equally_often() -> None:
    seen: list[float] = []

    def note(path: Path, rng: random.Random) -> None:
        seen.append(rng.random())

    def absent(path: Path, rng: random.Random) -> None:
        raise NotHereError

    def prepare(folder: Path) -> None:
        (folder / "file").write_text("good")

    target = Target("t", "file", prepare, command, {"a": note, "b": note, "c": absent})
    first = [case.fault for case in run_target(target, 6, 1)]
    assert Counter(first) == {"a": 2, "b": 2}
    assert [case.fault for case in run_target(target, 6, 1)] == first
    assert seen[:4] == seen[4:]
    assert len(set(seen)) == 4


def test_a_short_campaign_of_every_hdf5_file_finds_nothing_bad() -> None:
    command = [sys.executable, str(REPO / "tests" / "faults" / "hdf5_run.py"), "--cases", "6", "--seed", "1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stdout
    total = next(line.split() for line in found.stdout.splitlines() if line.startswith("all"))
    assert int(total[1]) >= 70
    assert int(total[2]) + int(total[3]) == int(total[1])
