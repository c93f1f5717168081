"""A network tried on a few samples: what is said of it, and each way in which a trial fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from audits import Audit

from mia_batch.cli import main
from mia_batch.process.child import run_limited
from mia_batch.stages import trial
from mia_batch.stages.trial import TRIED, draw

NewAudit = Callable[..., Audit]
FAILURES = '''
import os, time
from mindspore import nn

class Wide(nn.Cell):
    def construct(self, x):
        return x

def dies(num_classes=10):
    os.abort()

def exits(num_classes=10):
    os._exit(0)

def latin(num_classes=10):
    os.write(1, b"caf\\xe9 \\xff\\xfe\\n")
    raise RuntimeError("no such layer")

def raises(num_classes=10):
    raise RuntimeError("no such layer")

def gives_images(num_classes=10):
    return Wide()
'''

OWN = '''
import numpy as np

def build(num_classes):
    from mindspore import nn
    print(" of the network's own\\ntried:   too\\nunfinished", end="")
    return nn.SequentialCell(nn.Flatten(), nn.Dense(3 * 32 * 32, num_classes))

def save(path, num_classes):
    import mindspore as ms
    ms.save_checkpoint(build(num_classes), path)

def first_three(given):
    return given[:, :3]

def centred(given):
    return given - given.mean(axis=0)

def images(split):
    drawn = np.random.default_rng(len(split)).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    return [(image, i % 2) for i, image in enumerate(drawn)]
'''


@pytest.mark.parametrize(("m", "n", "members"), [(500, 500, 32), (10, 500, 10), (500, 3, 61), (5, 6, 5)])
def test_rows_are_drawn_of_both_sides(m: int, n: int, members: int) -> None:
    member = np.repeat([1, 0], (m, n))
    rows = draw(member)
    assert len(rows) == len(np.unique(rows)) == min(TRIED, m + n)
    assert member[rows].sum() == members
    assert np.array_equal(rows, np.sort(rows))
    assert np.array_equal(rows, draw(member))


def test_check_says_what_goes_in_what_comes_out_and_what_is_right(
    new_audit: NewAudit, capsys: pytest.CaptureFixture
) -> None:
    audit = new_audit()
    assert main(["check", str(audit.config), "--try"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("tried:"))
    assert lines[at] == "tried:   inputs float32 (8, 3, 32, 32); outputs Float32 8x10; labels 0 to 9"
    found = re.fullmatch(r" {9}right on (\d+) of 32 members and (\d+) of 32 non-members", lines[at + 1])
    assert found
    assert all(int(right) <= 32 for right in found.groups())


def own_config(folder: Path, num_classes: int, output: str) -> Path:
    """A configuration of `OWN`, with its network's checkpoint."""
    code, checkpoint = folder / "own.py", folder / "own.ckpt"
    code.write_text(OWN)
    saved = f"import own; own.save({str(checkpoint)!r}, {num_classes})"
    subprocess.run([sys.executable, "-c", saved], check=True, cwd=folder, capture_output=True, timeout=120)
    model = {"factory": f"{code}:build", "kwargs": {"num_classes": num_classes}, "checkpoint": str(checkpoint)}
    raw = {
        "model": model | {"output": output.format(code)},
        "data": {"source": f"{code}:images", "members": {"split": "train"}, "nonmembers": {"split": "unseen"}},
        "attack": {"cv": 2, "methods": [{"method": "correctness"}]},
    }
    config = folder / "own.yaml"
    config.write_text(yaml.safe_dump(raw))
    return config


@pytest.mark.parametrize(
    ("num_classes", "output", "given"), [(1, "logits", "64x1"), (5, "{}:first_three", "64x5")], ids=["one", "function"]
)
def test_what_is_tried_may_have_other_columns_than_are_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture, num_classes: int, output: str, given: str
) -> None:
    """One logit makes two columns, and a function any number, as in an extraction. Its prints are not shown."""
    config = own_config(tmp_path, num_classes, output)
    assert main(["check", str(config), "--try", "--set", f"model.checkpoint = {tmp_path / 'own.ckpt'}"]) == 0
    printed = capsys.readouterr().out
    assert "for 2 classes" in printed
    tried = printed[printed.index("tried:") :].splitlines()
    assert tried[0] == f"tried:   inputs float32 (64, 3, 32, 32); outputs Float32 {given}; labels 0 to 1"
    assert [line.split()[0] for line in tried] == ["tried:", "right"]


def test_a_function_that_mixes_the_samples_of_a_batch_is_refused_by_check_and_by_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The size of the batch alone would decide the verdict."""
    config = own_config(tmp_path, 5, "{}:centred")
    for command in (["check", str(config), "--try"], ["run", str(config), "--out", str(tmp_path / "run")]):
        assert main(command) == 2
        printed = capsys.readouterr()
        if command[0] == "check":
            (line,) = (line for line in printed.err.splitlines() if line.startswith("mia-batch: "))
            assert "must get one answer each time and whatever samples are beside it" in line
            assert "own.py:centred of model.output" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.factory={}:dies", "--try: the network must run on 64 samples on CPU within 600 s and "),
        ("model.factory={}:exits", "GiB, got: it ended with exit code 0 and without a result"),
        ("model.factory={}:latin", "raised RuntimeError: no such layer"),
        ("model.factory={}:raises", "raised RuntimeError: no such layer"),
        ("model.factory={}:gives_images", "model.checkpoint: must have no other parameters"),
        ("model.kwargs.num_classes=7", "model.checkpoint: must have the network's shapes"),
    ],
    ids=["dies", "exits", "bytes", "raises", "other parameters", "other shapes"],
)
def test_a_trial_that_fails_is_one_line(
    new_audit: NewAudit, tmp_path: Path, capsys: pytest.CaptureFixture, change: str, said: str
) -> None:
    (tmp_path / "failures.py").write_text(FAILURES)
    audit = new_audit()
    command = ["check", str(audit.config), "--try", "--set", change.format(tmp_path / "failures.py")]
    assert main(command) == 2
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if line.startswith("mia-batch: "))
    assert said in line
    assert "died of SIGABRT" in line or "dies" not in change
    assert printed.out == ""


def test_a_run_says_that_a_stage_has_ended_without_doing_its_work(
    new_audit: NewAudit, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "failures.py").write_text(FAILURES)
    audit = new_audit()
    change = f"model.factory={tmp_path / 'failures.py'}:exits"
    assert main(["run", str(audit.config), "--out", str(tmp_path / "run"), "--set", change]) == 1
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("mia-batch: "))
    assert line.startswith("mia-batch: extract ended with exit code 0 without doing its work: does the network")


def test_without_mindspore_submit_says_so_and_check_refuses(
    new_audit: NewAudit, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial.importlib.util, "find_spec", lambda name: None)
    audit = new_audit()
    assert main(["check", str(audit.config), "--try"]) == 2
    assert "--try: needs MindSpore, got none" in capsys.readouterr().err
    command = ["submit", str(audit.config), "--out", str(audit.config.with_name("run")), "--site", "cpu", "--dry-run"]
    assert main([*command, "--try"]) == 0
    assert "not tried: MindSpore is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "limits", "how"),
    [
        ("print('said'); raise SystemExit(3)", {}, "it ended with exit code 3"),
        ("import time; time.sleep(60)", {"seconds": 0.5}, "it takes longer"),
        ("held = bytearray(b'x' * 2 ** 28); import time; time.sleep(60)", {"memory": 2**26}, "it holds 0."),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {}, "it died of SIGSEGV"),
    ],
    ids=["ends", "time", "memory", "dies"],
)
def test_limits_of_a_process(code: str, limits: dict[str, float], how: str) -> None:
    ended = run_limited([sys.executable, "-c", code], **{"seconds": 60, "memory": 2**40, **limits})
    assert ended.how.startswith(how)
    assert ended.stdout == ("said\n" if "said" in code else "")
