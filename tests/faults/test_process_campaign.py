"""A short form of `make faults`: stages of an audit are disturbed, and what comes out is the same."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from process_campaign import CHANGED, CODE, COLUMNS, GOOD, HANG, TRACEBACK, Case, _judged, conclude, table
from stage_processes import Ended
from tiny_audits import differing, left_by, of_outputs

CAMPAIGN = Path(__file__).with_name("process_campaign.py")


def test_a_short_campaign_finds_nothing_bad() -> None:
    command = [sys.executable, str(CAMPAIGN), "--faults", "16", "--seed", "1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    total = next(line.split() for line in found.stdout.splitlines() if line.startswith("all"))
    assert total[1:] == ["16", *["0"] * (len(COLUMNS) - 1)]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(0, ""), ""),
        (Ended(75, ""), ""),
        (Ended(2, "mia-batch: a: must be b"), ""),
        (Ended(2, ""), CODE),
        (Ended(1, ""), CODE),
        (Ended(-signal.SIGSEGV, ""), CODE),
        (Ended(1, "Traceback (most recent call last)\n"), TRACEBACK),
        (Ended(-9, "", hung=True), HANG),
    ],
)
def test_how_a_process_may_end_is_told_from_how_it_may_not(ended: Ended, outcome: str) -> None:
    assert _judged(ended, (0, 75, 2)) == outcome


def test_what_an_audit_leaves_is_compared_to_the_bit(tmp_path: Path) -> None:
    import h5py

    audit = of_outputs(tmp_path / "case", "serial")
    for stage in audit.stages:
        job = CAMPAIGN.parents[2] / "jobs" / f"{stage.job}.py"
        done = subprocess.run([sys.executable, job, *stage.words], cwd=audit.folder, capture_output=True, check=False)
        assert done.returncode in stage.done, done.stderr
    left = left_by(audit.folder)
    assert differing(left_by(audit.folder), left) == []
    with h5py.File(audit.folder / "run" / "attacks" / "lr.h5", "r+") as file:
        file["predicted"][0] = 1 - file["predicted"][0]
    records = audit.folder / "run" / "records.csv"
    records.write_text(records.read_text().replace("1", "2", 1))
    (audit.folder / "run" / "more.csv").touch()
    changed = [line.partition(":")[0] for line in differing(left_by(audit.folder), left)]
    assert changed == ["/run/attacks/lr.h5/predicted", "/run/more.csv", "/run/records.csv"]


def test_the_table_counts_and_anything_bad_fails(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Case("a", "kill", "1", GOOD, ""), Case("b", "kill", "2", CHANGED, "differ: x")
    assert conclude([good], []) == 0
    assert conclude([good, bad], ["no compiler"]) == 1
    said = capsys.readouterr().out
    assert "-- changed: kill, b (2)\ndiffer: x" in said
    assert "skipped: no compiler" in said
    assert table([good, bad, bad]).splitlines()[1].split() == ["kill", "1", "0", "2", "0", "0", "0"]
