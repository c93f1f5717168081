"""`mia-batch import`, and audits of outputs where neither MindSpore nor mpi4py can be imported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from outputs import made_up, softmax, write_csv, write_npz
from running import REPO
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from mia_batch.cli import main
from mia_batch.data.outputs import Outputs
from mia_batch.settings.loading import load_config

BLOCKED = '''
import sys

class Blocked:
    """What is not installed here."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mindspore", "mpi4py"):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by a test)", name=name)

sys.meta_path.insert(0, Blocked())
'''


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes, and of theirs, in which MindSpore and mpi4py cannot be imported."""
    folder = tmp_path_factory.mktemp("blocked")
    (folder / "sitecustomize.py").write_text(BLOCKED)
    environ = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name in ("mindspore", "mpi4py.MPI"):
        refused = subprocess.run([sys.executable, "-c", f"import {name}"], env=environ, capture_output=True, text=True)
        assert "blocked by a test" in refused.stderr
    return environ


def shell(command: str, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line of the page, as a user types it."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_tutorial_runs_without_mindspore_and_mpi(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """Every command of docs/outputs.md's first blocks, in order."""
    page = (REPO / "docs" / "outputs.md").read_text()
    (tmp_path / "configs").symlink_to(REPO / "configs")
    first, second = re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[:2]
    codes = {}
    for line in first.splitlines():
        codes[line] = shell(line, tmp_path, elsewhere).returncode
    assert list(codes.values()) == [0, 0, 3, 0, 3], codes
    summary = json.loads((tmp_path / "runs" / "forest" / "summary.json").read_text())
    assert summary["verdict"]["outcome"] == "leak"
    assert "mpi4py" not in json.dumps(summary["checks"])
    _, check, run = second.splitlines()
    assert check.startswith("mia-batch check configs/outputs.yaml")
    assert run.startswith("mia-batch run configs/outputs.yaml")
    (tmp_path / "configs").unlink()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "outputs").mkdir()
    (tmp_path / "configs" / "outputs.yaml").write_text((REPO / "configs" / "outputs.yaml").read_text())
    (tmp_path / "forest.npz").rename(tmp_path / "configs" / "outputs" / "forest.npz")
    done = shell(check, tmp_path, elsewhere)
    assert done.returncode == 0
    assert "probabilities (10 a sample), label from label, member from member" in done.stdout


def classifier(model: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    """Probabilities of a classifier of scikit-learn, half of whose data were its training data."""
    X, y = make_classification(n, 20, n_informative=6, flip_y=0.2, random_state=seed)
    member = np.arange(n) % 2
    return {
        "probabilities": model.fit(X[member == 1], y[member == 1]).predict_proba(X), "label": y, "member": member
    }


def test_a_forest_leaks_and_a_regression_does_not(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """From .npz and from CSV, with the same figures."""
    models = {"forest": RandomForestClassifier(50, random_state=0), "regression": LogisticRegression(C=0.1)}
    methods = [{"method": "threshold_loss"}, {"method": "correctness"}, {"method": "lr", "params": {"C": [1.0]}}]
    (tmp_path / "attacks.yaml").write_text(yaml.safe_dump({
        "data": {"source": "outputs", "files": "none.npz", "nonmembers_used_for": "none"},
        "attack": {"methods": methods},
    }))  # fmt: skip
    found = {}
    for name, expected, kinds in (("forest", 3, ("npz", "csv")), ("regression", 0, ("csv",))):
        outputs = classifier(models[name], 3000, 1)
        for kind in kinds:
            write = {"npz": write_npz, "csv": write_csv}[kind]
            file, out = write(tmp_path / name, outputs), tmp_path / f"{name}_{kind}"
            config = f"mia-batch import {file.name} --config attacks.yaml --out {out.name}"
            done = shell(config, tmp_path, elsewhere)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip() == f"mia-batch run {out}/audit.yaml --out {out}"
            done = shell(done.stdout, tmp_path, elsewhere)
            assert done.returncode == expected, done.stdout + done.stderr
            found[name, kind] = json.loads((out / "summary.json").read_text())
    one, other = found["forest", "npz"], found["forest", "csv"]
    assert one["verdict"] == other["verdict"]
    assert [each["metrics"] for each in one["methods"].values()] == [
        each["metrics"] for each in other["methods"].values()
    ]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["a.npz"], "a.npz"),
        (["a.npz", "b.npz"], {"members": "a.npz", "nonmembers": "b.npz"}),
        (["logits=z.npy", "label=y.npy", "member=m.npy"], {"logits": "z.npy", "label": "y.npy", "member": "m.npy"}),
        (["members.loss=z.npy", "nonmembers.loss=y.npy"],
         {"members": {"loss": "z.npy"}, "nonmembers": {"loss": "y.npy"}}),
    ],
)  # fmt: skip
def test_the_config_names_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], files: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = made_up(100)
    sides = [{name: a[arrays["member"] == side] for name, a in arrays.items() if name != "member"} for side in (1, 0)]
    write_npz(tmp_path / "a", arrays if len(words) == 1 else sides[0])
    write_npz(tmp_path / "b", sides[1])
    losses = "loss" in words[0]
    for name, array in (("z", arrays["logits"]), ("y", arrays["label"]), ("m", arrays["member"])):
        np.save(f"{name}.npy", np.arange(50.0) + "zym".index(name) if losses else array)
    assert main(["import", *words, "--out", "out"]) == 0
    made = load_config(tmp_path / "out" / "audit.yaml")

    def absolute(value: Any) -> Any:
        return {name: absolute(each) for name, each in value.items()} if isinstance(value, dict) else tmp_path / value

    assert made.data.files == absolute(files)  # type: ignore[attr-defined]
    assert {each.method for each in made.attack.methods} >= {"correctness", "rf"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.npz"], "mia-batch: FILE: must be a file that can be read, got"),
        (["a.npz", "a.npz", "a.npz"], "FILE: must be one file, two (members, then non-members), or NAME=FILE.npy"),
        (["logits=a.npz"], "FILE: must be a file, or .npy files by what they hold, got 'logits'"),
        (["sides.logits=z.npy"], "FILE: must name what z.npy holds"),
        (["logits=z.npy", "logits=z.npy"], "FILE: must name what each file holds once, got logits=z.npy"),
        (["a.npz", "--column", "label"], "--column: must be KEY=NAME, KEY one of logits, probabilities"),
        (["a.npz", "--column", "labl=y"], "--column: must be KEY=NAME, KEY one of logits, probabilities"),
        (["a.npz", "--column", "label=yy"], "a.npz: data.columns.label: must be there, got yy; it has logits, label"),
        (["a.npz", "--column", "logits=logits", "--column", "loss=loss"], "must name one of logits, probabilities, l"),
        (["a.npz", "--config", "gone.yaml"], "gone.yaml: must be a configuration file, got: No such file"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_npz(tmp_path / "a", made_up(50))
    assert main(["import", *words, "--out", "out"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mia-batch: ")]
    assert said in line
    assert not (tmp_path / "out").exists()


def test_an_import_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = made_up(60)
    write_npz(tmp_path / "a", arrays)
    write_npz(tmp_path / "b", {**arrays, "probabilities": softmax(arrays["logits"])})
    assert main(["import", "a.npz", "--out", "out"]) == 0
    assert main(["import", "a.npz", "--out", "out"]) == 0
    before = (tmp_path / "out" / "features.h5").read_bytes()
    assert main(["import", "b.npz", "--out", "out"]) == 2
    assert "out: --out: holds another audit.yaml; choose another --out, or audit with" in capsys.readouterr().err
    assert (tmp_path / "out" / "features.h5").read_bytes() == before


def test_of_a_given_config_columns_are_kept_but_for_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = made_up(60)
    write_npz(tmp_path / "a", {"z": arrays["logits"], "y": arrays["label"], "member": arrays["member"]})

    def imported(data: dict[str, Any], *words: str) -> tuple[dict[str, Any], list[str]]:
        """The section `data` that is written, and what is said of the given one."""
        raw = {"data": data, "attack": {"methods": [{"method": "correctness"}]}}
        (tmp_path / "given.yaml").write_text(yaml.safe_dump(raw))
        assert main(["import", "a.npz", "--config", "given.yaml", "--column", "logits=z", *words]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "given config" in line]
        return yaml.safe_load((tmp_path / words[-1] / "audit.yaml").read_text())["data"], said

    given = {"source": "outputs", "files": "gone.npz", "columns": {"label": "y", "loss": "l"}, "randomised": True}
    made, said = imported(given, "--out", "out")
    assert (made["columns"], made["randomised"], said) == ({"label": "y", "logits": "z"}, True, [])
    network = {"source": "a.b:c", "members": {"split": "a"}, "nonmembers": {"split": "b"}, "randomised": True}
    made, (line,) = imported(network, "--column", "label=y", "--out", "other")
    assert made["randomised"] is False
    assert line.endswith("not taken for source outputs: data.members, data.nonmembers, data.randomised")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_an_import_that_is_stopped_says_by_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, code: int
) -> None:
    read_samples = Outputs.read_samples

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signum)
        return read_samples(*arguments)

    monkeypatch.setattr(Outputs, "read_samples", interrupted)
    file = write_npz(tmp_path / "a", made_up(60))
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == code
    assert not (tmp_path / "out").exists()


def test_submit_queues_the_import_as_the_first_job(tmp_path: Path, capsys: Any) -> None:
    files = str(write_npz(tmp_path / "a", made_up(60)))
    raw = {"data": {"source": "outputs", "files": files}, "attack": {"methods": [{"method": "correctness"}]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    arguments = [str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out"), "--site", "gpu", "--dry-run"]
    assert main(["submit", *arguments]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.partition("=")[0] for line in lines] == ["import", "attack", "reduce"]
    said = [line.partition(" (")[0] for line in printed.err.splitlines() if "estimate: " in line]
    assert [line.partition("estimate: ")[2].partition(":")[0] for line in said] == ["attack", "reduce"]
    assert "slurm/import.sbatch" in lines[0]
    assert "gres" not in lines[0]
    assert "--dependency=afterok:$import" in lines[1]
    assert main(["submit", *arguments, "--checkpoints", files]) == 2
    assert "data.source: must not be outputs where a checkpoint is named" in capsys.readouterr().err


def test_a_key_of_columns_is_given_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = str(write_npz(tmp_path / "a", made_up(60)))
    words = ["--column", "label=label", "--column", "label=member"]
    assert main(["import", file, "--out", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err == "mia-batch: --column: must give each key once, got label twice\n"


def test_out_that_can_be_no_directory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = str(write_npz(tmp_path / "a", made_up(60)))
    for out, more in ((file, ""), (f"{file}/deeper", f", but {file} is none")):
        assert main(["import", file, "--out", out]) == 2
        assert capsys.readouterr().err == f"mia-batch: --out: must be a directory, got {out}{more}\n"
