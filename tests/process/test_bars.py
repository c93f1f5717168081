"""Progress on a real terminal, in a log and in neither: nothing is garbled, whoever writes and however it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminals import COLOUR, Seen, on_terminal, python

from mia_batch.process.bars import BARS, State, parts_text
from mia_batch.process.child import run_stage
from mia_batch.process.progress import MARK, Progress, Received
from mia_batch.process.stage_log import StageLog

WORKS = """
import logging, os, signal, sys, time
from mia_batch.process.exit_codes import run_endable, run_main
from mia_batch.process.progress import Progress

def main():
    log = logging.getLogger("mia_batch.x")
    with Progress(40, what=os.environ.get("WHAT", "attack"), unit="tasks") as progress:
        for number in range(40):
            progress.set(number + 1, parts=("lr 1/2", "[bold]rf[/bold] 3/4"))
            log.info("line %d of the log, which is long enough to go beyond forty columns", number)
            time.sleep(0.02)
            if number == 20 and "wait" in sys.argv:
                log.warning("waits")
                time.sleep(60)
    print("the result")
    return 3

sys.exit(run_endable(lambda: run_main(main, quiet="quiet" in sys.argv)))
"""
LOGGED = [f"line {number} of the log, which is long enough to go beyond forty columns" for number in range(40)]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_bar_and_lines_of_the_log_do_not_garble_each_other(columns: int) -> None:
    seen = on_terminal(python(WORKS), columns=columns)
    assert seen.code == 3
    assert any(re.match(r"attack [━╸╺ ]+ \d+/40 tasks", line) for line in seen.bars)
    assert all(sum("━" in line for line in screen) <= 1 for screen in seen.screens)  # none is wrapped, or left behind
    said = "".join(line.ljust(columns) for line in seen.lines)
    assert [line for line in LOGGED if line not in said] == []
    assert "40/40 tasks (100 %)" in said
    assert said.rstrip().endswith("the result")
    assert not any("━" in line for line in seen.lines)


def test_a_wide_terminal_has_the_time_left_and_what_has_begun() -> None:
    assert any(re.search(r"\d+/40 tasks \d+:\d\d, \d+:\d\d left lr 1/2, \[bold\]rf\[/bold\] 3/4", line)
               for line in on_terminal(python(WORKS), columns=120).bars)  # fmt: skip


def test_the_name_of_others_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHAT", "[red]a[/red]\x1b]0;title\x07\u202e")
    seen = on_terminal(python(WORKS), columns=120)
    assert any(line.startswith("[red]a[/red]\\x1b]0;title\\x07\\u202e ") for line in seen.bars)
    assert b"\x1b]0;" not in seen.raw


def test_no_color_has_none() -> None:
    assert COLOUR.search(on_terminal(python(WORKS)).raw)
    assert not COLOUR.search(on_terminal(python(WORKS), env={"NO_COLOR": "1"}).raw)


def test_a_terminal_that_moves_no_cursor_gets_lines() -> None:
    seen = on_terminal(python(WORKS), env={"TERM": "dumb"})
    assert b"\x1b" not in seen.raw
    assert b"attack: 40/40 tasks (100 %)" in seen.raw


def test_without_a_terminal_there_are_lines_without_escapes() -> None:
    forced = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    done = subprocess.run(list(map(str, python(WORKS))), capture_output=True, check=False, env=forced, timeout=60)
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stdout == b"the result\n"
    assert b"attack: 40/40 tasks (100 %)" in done.stderr


def once_it_waits(signum: signal.Signals) -> Callable[[Seen, int], None]:
    """Send the signal once, when the command has said that it waits."""
    sent: list[int] = []

    def stop(seen: Seen, process: int) -> None:
        if b"waits" in seen.raw and not sent:
            sent.append(process)
            os.kill(process, signum)

    return stop


def test_quiet_says_only_the_result() -> None:
    assert on_terminal(python(WORKS, "quiet")).raw == b"the result\r\n"


def test_quiet_still_warns() -> None:
    seen = on_terminal(python(WORKS, "quiet", "wait"), meanwhile=once_it_waits(signal.SIGTERM))
    assert len(seen.lines) == 2
    assert seen.lines[0].endswith("W waits")
    assert seen.lines[1].startswith("mia-batch: stopped by SIGTERM")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_terminal_is_sane_however_it_ends(signum: signal.Signals) -> None:
    seen = on_terminal(python(WORKS, "wait"), meanwhile=once_it_waits(signum))
    assert seen.bars
    assert not seen.cursor_hidden
    assert b"\x1b[?25l" not in seen.raw  # nobody could show it again after a kill
    if signum != signal.SIGKILL:
        assert not any("━" in line for line in seen.lines)
        assert seen.code == {signal.SIGTERM: 75, signal.SIGINT: 130}[signum]


def test_work_goes_on_where_its_terminal_has_gone(tmp_path: Path) -> None:
    code = f"""
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from mia_batch.process.log_setup import set_up_logging
from mia_batch.process.progress import Progress
set_up_logging()
with Progress(10, what="attack", unit="tasks", every=0) as progress:
    for number in range(10):
        time.sleep(0.1)
        progress.add(1)
open({str(tmp_path / "done")!r}, "w").write(str(progress.done))
"""
    ours, its = pty.openpty()
    env = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=its, stdout=its, stderr=its, env=env)
    os.close(its)
    os.read(ours, 100)
    os.close(ours)
    assert process.wait(60) == 0
    assert (tmp_path / "done").read_text() == "10"


STAGE = """
import os, sys, time
from mia_batch.process.exit_codes import run_main
from mia_batch.process.progress import Progress

def main():
    with Progress(None, what="attack", unit="tasks") as progress:
        progress.total = 30
        for number in range(30):
            progress.add(1)
            print(f"result {number}", flush=True)
            os.write(2, f"a library says {number}\\n".encode())
            time.sleep(0.02)
    return 3

sys.exit(run_main(main))
"""
PARENT = """
import sys
from collections.abc import Callable
from pathlib import Path
from mia_batch.process.child import run_stage
from mia_batch.process.exit_codes import run_main
from mia_batch.process.progress import Progress
from mia_batch.process.stage_log import StageLog

def main():
    with Progress(None, what="attack"):
        return run_stage([sys.executable, "-c", sys.argv[1]], log=StageLog(Path(sys.argv[2]), "attack"))

sys.exit(run_main(main))
"""


def test_the_bar_of_a_stage_is_on_the_terminal_and_not_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "logs/attack.log"
    seen = on_terminal(python(PARENT, STAGE, log), columns=60)
    assert seen.code == 3
    assert any(re.match(r"attack [━╸╺ ]+ \d+/30 tasks", line) for line in seen.bars)
    assert all(sum("━" in line for line in screen) <= 1 for screen in seen.screens)
    kept = log.read_text()
    for text in (kept, "\n".join(seen.lines)):
        assert [line for line in text.splitlines() if line.startswith("result")] == [f"result {i}" for i in range(30)]
        assert [line for line in text.splitlines() if "library" in line] == [f"a library says {i}" for i in range(30)]
        assert text.count("attack: 30/30 tasks (100 %)") == 1
    assert not re.search("[\x00-\x09\x0b-\x1f]", kept)


def test_a_stage_whose_output_is_no_terminal_says_lines(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "logs/attack.log"
    assert run_stage([sys.executable, "-c", STAGE], log=StageLog(path, "attack")) == 3
    assert b"attack: 30/30 tasks (100 %)" in path.read_bytes()
    assert MARK not in path.read_bytes() + capfdbinary.readouterr().err


# --- messages --------------------------------------------------------------------------------------------------------


def message(body: Any, key: str = "1") -> bytes:
    return MARK + json.dumps([key, body]).encode() + b"\n"


def test_messages_are_taken_out_wherever_the_bytes_are_parted() -> None:
    state = {"what": "a", "unit": "b", "done": 1, "total": 2, "parts": []}
    said = b"one\n" + message(state) + message(None) + b"two\nrest"
    for at in range(len(said)):
        kept: list[str] = []
        received = Received(kept.append)
        assert received.take(said[:at]) + received.take(said[at:]) + received.end() == b"one\ntwo\nrest"
        assert kept == []
    assert Received(kept.append).take(b"[node 0] " + message(state)) == b""  # a rank whose lines are labelled


def test_what_only_looks_like_a_message_is_passed_on() -> None:
    kept: list[str] = []
    for said in (MARK + b"no JSON\n", message({"what": "a"}), message([1]), message(3), b"\x1eother\n", MARK):
        received = Received(kept.append)
        assert received.take(said) + received.end() == said
    assert kept == []


def test_a_line_for_the_log_goes_there_with_the_time() -> None:
    kept: list[str] = []
    assert Received(kept.append).take(message("attack: 3/4 tasks")) == b""
    assert re.fullmatch(r"\d\d:\d\d:\d\d I attack: 3/4 tasks", kept[0])


def test_a_stage_whose_parent_shows_its_progress_keeps_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setenv("MIA_BATCH_PROGRESS", "1")
    monkeypatch.setattr("mia_batch.process.progress.time.monotonic", lambda: now[0])
    caplog.set_level("INFO", "mia_batch.process.progress")
    kept: list[str] = []
    with Progress(100, what="a", unit="b") as progress:
        for second in range(1, 101):
            now[0] = float(second)
            progress.add(1)
    received = Received(kept.append)
    assert received.take(capfdbinary.readouterr().err) == b""
    assert [line[9:] for line in kept] == ["I a: 60/100 b (60 %), 1.0 b/s, 40 s left"]
    assert caplog.messages == ["a: 100/100 b (100 %), 1.0 b/s"]


def test_progress_is_silent_where_information_is_not_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "mia_batch.process.progress")
    with Progress(2, every=0) as progress:
        progress.add(2)
    assert caplog.messages == []


def test_parts_are_named_as_far_as_there_is_room() -> None:
    assert parts_text(("a 1/2", "b 1/2")) == "a 1/2, b 1/2"
    assert parts_text(tuple("abcdef")) == "a, b, c, d, 2 more"


def test_what_begins_counts_what_began_before_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mia_batch.process.progress")
    with Progress(3, what="reduce", unit="steps", every=0) as progress:
        for name in ("metrics of lr", "epsilon of lr", "report.html"):
            progress.begin(name)
    assert [line.partition(" steps")[0] for line in caplog.messages] == ["reduce: 0/3", "reduce: 1/3", "reduce: 2/3"]
    assert caplog.messages[1].endswith("left; epsilon of lr")


def test_no_bar_is_drawn_where_there_is_no_terminal() -> None:
    BARS.show("key", State("a", "b", 1, 2))
    assert not BARS.live
