"""Verdicts that got worse: which, and that each is told once, whoever tries and whatever it is called."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from rundirs import a_manifest, make_run, write_verdict

from mia_batch.errors import InputError
from mia_batch.process.command_line import add_output_arguments
from mia_batch.report.entries import Entry
from mia_batch.rundir.paths import RunPaths
from mia_batch.scheduler import nightly, worsenings
from mia_batch.scheduler.history import History
from mia_batch.scheduler.site import load_site
from mia_batch.scheduler.worsenings import STALE_S, tell_of_worsenings

# Notes its environment, its words and what it reads, a line each time; fails while there is a file `fail` beside.
NOTES = """
import json, os, pathlib, sys
file = pathlib.Path(sys.argv[1])
told = {name: value for name, value in os.environ.items() if name.startswith("MIA_BATCH_")}
line = json.dumps([told, sys.argv[2:], sys.stdin.read()]) + "\\n"
descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(descriptor, line.encode())
if file.with_name("fail").exists():
    print("no mail today")
    sys.exit(7)
"""


@pytest.fixture
def notes(tmp_path: Path) -> tuple[list[str], Callable[[], list[Any]]]:
    """A command, and what it has noted."""
    script, file = tmp_path / "note.py", tmp_path / "notes"
    script.write_text(NOTES)
    command = [sys.executable, str(script), str(file), "a  b", "$(touch x); `y` \"z\""]
    return command, lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def audit(runs: Path, day: int, leak: bool | None, *, name: str = "") -> RunPaths:
    checkpoint = {"model.checkpoint": f"/w/net-{day}.ckpt", "digests.model.checkpoint": f"{day:064x}"}
    manifest = a_manifest(created=f"2030-01-{day:02d}T01:00:00+00:00", **checkpoint)
    paths = make_run(RunPaths(runs / (name or f"run{day}")), manifest)
    write_verdict(paths, manifest, leak=leak)
    return paths


def found(*outcomes: str) -> list[tuple[str, str | None]]:
    """Which of a training's verdicts got worse, by number, and than what."""
    entries = [Entry(run=str(i), outcome=outcome, training="t") for i, outcome in enumerate(outcomes)]
    return [
        (each.entry.run, each.before and each.before.outcome)
        for each in worsenings.worsenings(History(tuple(entries), ()))
    ]


def test_worse_is_a_step_towards_a_leak_or_a_first_leak() -> None:
    no, unsure, leak = "no leak", "inconclusive", "leak"
    assert found(no, no, unsure, unsure, leak, leak, no, leak) == [("2", no), ("4", unsure), ("7", no)]
    assert found(leak, leak) == [("0", None)]
    assert found(unsure, no) == []
    assert found(no, "", leak) == [("2", no)]  # one without a verdict is no verdict


def test_trainings_are_looked_at_one_by_one_and_what_cannot_be_read_is_left_out() -> None:
    entries = [Entry("a", outcome="leak", training="t"), Entry("b", outcome="no leak", training="u"),
               Entry("c", outcome="leak", training="u"), Entry("d", outcome="leak")]  # fmt: skip
    assert [each.entry.run for each in worsenings.worsenings(History(tuple(entries), ()))] == ["a", "c"]


def test_the_command_gets_its_words_and_the_audit_as_they_are(
    tmp_path: Path, notes: tuple[list[str], Callable[[], list[Any]]]
) -> None:
    command, told = notes
    runs = tmp_path / "runs"
    before = audit(runs, 1, False)
    worse = audit(runs, 2, True, name="$(touch pwned) ;`x`\n'")
    worse.page.touch()
    tell_of_worsenings(command, runs)
    ((environ, words, text),) = told()
    assert words == ["a  b", "$(touch x); `y` \"z\""]
    assert environ == {
        "MIA_BATCH_RUN": str(worse.root), "MIA_BATCH_CHECKPOINT": "/w/net-2.ckpt", "MIA_BATCH_OUTCOME": "leak",
        "MIA_BATCH_STEP": "2", "MIA_BATCH_BEFORE": "no leak", "MIA_BATCH_BEFORE_RUN": str(before.root),
        "MIA_BATCH_REPORT": str(worse.page),
    }  # fmt: skip
    assert text.startswith("### :x: Membership-inference audit: leak\n")
    assert not list(tmp_path.rglob("pwned"))


def test_each_is_told_once_whoever_tries(tmp_path: Path, notes: tuple[list[str], Callable[[], list[Any]]]) -> None:
    command, told = notes
    runs = tmp_path / "runs"
    for day, leak in ((1, False), (2, None), (3, True)):
        audit(runs, day, leak)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: tell_of_worsenings(command, runs), range(6)))
    tell_of_worsenings(command, runs)
    assert sorted(environ["MIA_BATCH_OUTCOME"] for environ, *_ in told()) == ["inconclusive", "leak"]
    audit(runs, 4, False)
    audit(runs, 5, True)
    tell_of_worsenings(command, runs)
    assert [environ["MIA_BATCH_STEP"] for environ, *_ in told()[2:]] == ["5"]


def test_a_command_that_fails_is_run_again_until_it_does_not(
    tmp_path: Path, notes: tuple[list[str], Callable[[], list[Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    command, told = notes
    runs = tmp_path / "runs"
    audit(runs, 1, True)
    (tmp_path / "fail").touch()
    with caplog.at_level(logging.WARNING):
        tell_of_worsenings(command, runs)
    assert "tried again next time: exit code 7: no mail today" in caplog.text
    (tmp_path / "fail").unlink()
    for _ in range(3):
        tell_of_worsenings(command, runs)
    assert len(told()) == 2


def test_what_a_process_that_was_killed_has_begun_is_told_later(
    tmp_path: Path, notes: tuple[list[str], Callable[[], list[Any]]]
) -> None:
    command, told = notes
    paths = audit(tmp_path / "runs", 1, True)
    attempt = paths.root / ".worse-leak-0000"
    attempt.mkdir()
    tell_of_worsenings(command, tmp_path / "runs")
    assert told() == []
    past = attempt.stat().st_mtime - STALE_S - 1
    os.utime(attempt, (past, past))
    for _ in range(2):
        tell_of_worsenings(command, tmp_path / "runs")
    assert len(told()) == 1


def test_a_command_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    audit(tmp_path, 1, True)
    monkeypatch.setattr(worsenings, "LIMIT_S", 0.2)
    with caplog.at_level(logging.WARNING):
        tell_of_worsenings([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    assert "timed out" in caplog.text


def test_nightly_tells_before_it_queues_and_a_dry_run_only_says_so(
    tmp_path: Path, write_config: Callable[..., Path], notes: tuple[list[str], Callable[[], list[Any]]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    command, told = notes
    audit(tmp_path / "runs", 1, True)
    (tmp_path / "watch").mkdir()
    site = tmp_path / "site.yaml"
    words = ["--watch", str(tmp_path / "watch"), "--runs", str(tmp_path / "runs"), "--site", str(site)]
    parser = nightly.argparse.ArgumentParser()
    nightly.add_arguments(parser)
    add_output_arguments(parser, **nightly.QUIET)
    site.write_text(yaml.safe_dump({"on_worse": command}))
    assert load_site(site).on_worse == tuple(command)
    with caplog.at_level(logging.INFO):
        assert nightly.run(parser.parse_args([str(write_config()), *words, "--dry-run"])) == 0
    assert f"would tell of {tmp_path / 'runs' / 'run1'}: the first verdict, then leak" in caplog.text
    assert told() == []
    assert nightly.run(parser.parse_args([str(write_config()), *words])) == 0
    assert len(told()) == 1
    site.write_text("on_worse: no-such-program 'a b'")
    with pytest.raises(InputError, match="on_worse: must begin with a program that can be run, got no-such-program"):
        nightly.run(parser.parse_args([str(write_config()), *words]))
