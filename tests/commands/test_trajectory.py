"""Audits of one training run joined by step: on made-up run directories, and on real audits of imported outputs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from outputs import a_raw_config
from trajectories import some_logits, write_audit

from mia_batch.cli import main
from mia_batch.metrics.ranking import auc
from mia_batch.process.exit_codes import run_main
from mia_batch.signals import loss, phi
from mia_batch.stages.trajectory_report import join_all

N = 200
MEMBER = (np.arange(N) < N // 2).astype(np.int8)
LABEL = np.zeros(N, dtype=np.int64)
LEFT_OUT = "left out: "


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main(["trajectory", *map(str, argv)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def read_object(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    return json.loads(run(capsys, *argv, "--json")[1])


def refused(capsys: pytest.CaptureFixture[str], runs: Path) -> str:
    """The one line that is said."""
    code, out, err = run(capsys, runs)
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


def test_steps_in_order_with_verdicts_and_the_first_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step, outcome, accuracy in ((10, True, 0.75), (2, False, 0.5), (9, "unknown", 0.6), (3, False, 0.52)):
        write_audit(tmp_path, step, outcome, MEMBER, accuracy=accuracy)
    code, text, _ = run(capsys, tmp_path)
    assert code == 3
    lines = text.splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["1", "2", "net-1_2.ckpt", "run2", "no", "leak", "rf", "0.5000", "0.4600-0.5400"],
        ["1", "3", "net-1_3.ckpt", "run3", "no", "leak", "rf", "0.5200", "0.4800-0.5600"],
        ["1", "9", "net-1_9.ckpt", "run9", "inconclusive", "rf", "0.6000", "0.5600-0.6400"],
        ["1", "10", "net-1_10.ckpt", "run10", "leak", "rf", "0.7500", "0.7100-0.7900"],
    ]
    assert "First leak found: step 1 10 (run10), balanced accuracy 0.7500 (0.7100 to 0.7900); after step 1 3 (run3), " \
        "the last that found none; 1 between them cannot say." in lines  # fmt: skip
    assert "LT-IQR ranks training records by exposure; it is not a membership test." in lines
    exposed = next(line for line in lines if line.startswith("Largest LT-IQR"))  # no index: a log has this text
    assert re.fullmatch(r".* last step: (\d\.\d{4}(, )?){5}\. The JSON and the CSV name the records\.", exposed)
    assert lines[-1] == "Update attack: not run, because no sample arrived in between."
    found = read_object(capsys, tmp_path)
    assert found["first_leak"] == {
        "run": "run10", "step": "1 10", "after_run": "run3", "after_step": "1 3", "n_inconclusive": 1,
    }  # fmt: skip
    assert [update["auc"] for update in found["updates"]] == [None] * 3
    assert (found["n_samples"], found["n_members"], len(found["most_exposed"])) == (N, N // 2, 5)


@pytest.mark.parametrize("columns", [40, 80])
def test_it_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    write_audit(tmp_path, 2, False, MEMBER, accuracy=0.5)
    write_audit(tmp_path, 10, True, MEMBER, accuracy=0.75)
    whole = run(capsys, tmp_path)[1]
    assert max(map(len, whole.splitlines())) > 100
    monkeypatch.setenv("COLUMNS", str(columns))
    narrow = run(capsys, tmp_path)[1]
    assert max(map(len, narrow.splitlines())) <= columns
    said = " ".join(narrow.split())
    assert "1 10 net-1_10.ckpt run10 leak rf 0.7500 0.7100-0.7900" in said
    assert "LT-IQR ranks training records by exposure; it is not a membership test." in said


@pytest.mark.parametrize(
    ("outcomes", "said", "code"),
    [
        ((False, False), "No audit found a leak.", 0),
        ((False, "unknown"), "No audit found a leak; 1 of 2 cannot say.", 4),
        ((True, False), "First leak found: step 1 1 (run1), balanced accuracy 0.5500 (0.5100 to 0.5900); no audit "
         "before it found none, so that it may have begun at any time.", 0),
        ((False, True, False, True), "First leak found: step 1 2 (run2), balanced accuracy 0.5500 (0.5100 to 0.5900); "
         "after step 1 1 (run1), the last that found none.", 3),
    ],
)  # fmt: skip
def test_where_the_leak_began(
    outcomes: tuple[Any, ...], said: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step, outcome in enumerate(outcomes, 1):
        write_audit(tmp_path, step, outcome, MEMBER)
    found, text, _ = run(capsys, tmp_path)
    assert found == code
    assert said in text.splitlines()


def test_a_record_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Membership of the last step; the order of a file changes with it, that of the CSV does not."""
    later = MEMBER.copy()
    later[[0, 150]] = 0, 1
    sides = {1: MEMBER, 2: MEMBER, 3: later}
    for step, member in sides.items():
        write_audit(tmp_path / "runs", step, False, member)
    file = tmp_path / "records.csv"
    assert run(capsys, tmp_path / "runs", "--csv", file)[0] == 0
    assert file.stat().st_mode & 0o077 == 0
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert list(rows[0]) == ["split", "index", "member", "label", "lt_iqr", "fluctuation", "last_loss"]
    assert [int(row["index"]) for row in rows] == list(range(N))
    assert [int(row["member"]) for row in rows] == later.tolist()
    assert {(row["split"], row["label"]) for row in rows} == {("train", "0")}
    losses = np.column_stack([loss(some_logits(side, seed=step), LABEL) for step, side in sides.items()])
    naive = np.quantile(losses, 0.75, axis=1) - np.quantile(losses, 0.25, axis=1)
    assert [float(row["lt_iqr"]) for row in rows] == pytest.approx(naive)
    assert [float(row["fluctuation"]) for row in rows] == pytest.approx(np.abs(np.diff(losses)).sum(axis=1))
    assert [float(row["last_loss"]) for row in rows] == pytest.approx(losses[:, -1])
    found = read_object(capsys, tmp_path / "runs")["most_exposed"]
    first = max(np.flatnonzero(later), key=lambda i: naive[i])
    assert found[0] == {"split": "train", "index": first, "lt_iqr": pytest.approx(naive[first])}


def test_the_update_attack_finds_who_arrived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between two audits whose members the configuration names apart: they are one training here."""
    later = (np.arange(N) < 150).astype(np.int8)
    blocks = [{"data.members": [{"split": "train", "num_samples": n, "range": None, "indices": None}],
               "data.nonmembers": [{"split": "train", "num_samples": None, "range": [n, N], "indices": None}]}
              for n in (100, 150)]  # fmt: skip
    write_audit(tmp_path, 1, False, MEMBER, **blocks[0])
    write_audit(tmp_path, 2, False, MEMBER, **blocks[0])
    write_audit(tmp_path, 3, False, later, **blocks[1])
    nothing, update = read_object(capsys, tmp_path)["updates"]
    assert nothing == {"before": "run1", "now": "run2", "n_arrived": 0, "n_stayed": 100, "n_twins": 0, "auc": None,
                       "tpr_at_fpr_0.1": None, "tpr_at_fpr_0.01": None, "tpr_at_fpr_0.001": None,
                       "reason": "no sample arrived in between"}  # fmt: skip
    assert (update["n_arrived"], update["n_stayed"], update["n_twins"], update["reason"]) == (50, 50, 0, None)
    change = phi(some_logits(later, seed=3), LABEL) - phi(some_logits(MEMBER, seed=2), LABEL)
    naive = auc(later[100:], change[100:])
    assert update["auc"]["value"] == pytest.approx(naive.value)
    assert update["auc"]["value"] == pytest.approx(np.mean(change[100:150, np.newaxis] > change[np.newaxis, 150:]))
    assert update["auc"]["low"] == pytest.approx(naive.low)
    text = run(capsys, tmp_path)[1]
    assert "Update attack, step 1 1 to step 1 2: not run, because no sample arrived in between." in text
    assert f"step 1 2 to step 1 3: AUC {naive.value:.4f} ({naive.low:.4f} to {naive.high:.4f}), 50 samples that arriv" \
        "ed against 50 that stayed outside." in text  # fmt: skip


def test_what_limits_the_update_attack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs on both sides have no answer, groups widen its interval, and somebody must have stayed."""
    later = (np.arange(N) < 150).astype(np.int8)
    content = np.arange(N)
    content[160:163] = content[110:113]
    group = np.where(np.arange(N) < 100, -1, np.arange(N) // 5)
    for step, member in ((1, MEMBER), (2, later)):
        write_audit(tmp_path / "twins", step, False, member, rows={"content": np.arange(N) % 50})
        write_audit(tmp_path / "runs", step, False, member, rows={"content": content})
        write_audit(tmp_path / "groups", step, False, member, rows={"content": content, "group": group})
        write_audit(tmp_path / "all", step, False, np.maximum(MEMBER, step - 1).astype(np.int8))
    code, text, _ = run(capsys, tmp_path / "runs")
    assert code == 0
    assert "50 samples that arrived against 50 that stayed outside, without 6 whose input is in both." in text
    alone, grouped = (read_object(capsys, tmp_path / name)["updates"][0]["auc"] for name in ("runs", "groups"))
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 1.5 * (alone["high"] - alone["low"])
    (update,) = read_object(capsys, tmp_path / "twins")["updates"]
    assert (update["n_twins"], update["reason"]) == (100, "no sample arrived, those aside whose input is in both")
    (update,) = read_object(capsys, tmp_path / "all")["updates"]
    assert (update["n_stayed"], update["auc"], update["reason"]) == (0, None, "no sample stayed outside")


def test_one_checkpoint_has_no_trajectory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audit(tmp_path / "runs", 1, True, MEMBER)
    file = tmp_path / "records.csv"
    code, text, _ = run(capsys, tmp_path / "runs", "--csv", file)
    assert code == 3
    assert "LT-IQR and fluctuation: not made, because a trajectory needs two checkpoints, got 1." in text
    assert "Update attack: not run, because there is one checkpoint." in text
    assert {(row["lt_iqr"], row["fluctuation"]) for row in csv.DictReader(file.read_text().splitlines())} == {("", "")}
    found = read_object(capsys, tmp_path / "runs")
    assert (found["most_exposed"], found["reason"]) == ([], "a trajectory needs two checkpoints, got 1")


def test_unfinished_and_damaged_runs_and_checkpoints_audited_twice_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_audit(tmp_path, 1, False, MEMBER)
    write_audit(tmp_path, 2, False, MEMBER)
    write_audit(tmp_path, 3, None, MEMBER)
    write_audit(tmp_path, 4, True, MEMBER).manifest.write_text("[]")
    write_audit(tmp_path, 5, True, MEMBER).summary_json.write_text("{")
    write_audit(tmp_path, 6, True, MEMBER, **{"digests.model.checkpoint": f"{2:064x}", "model.checkpoint":
                "/w/net-1_2.ckpt"})  # fmt: skip
    (tmp_path / "logs").mkdir()
    code, text, _ = run(capsys, tmp_path)
    assert code == 3
    left_out = dict(line.removeprefix(LEFT_OUT).split(": ", 1) for line in text.splitlines() if LEFT_OUT in line)
    assert list(left_out) == ["run3", "run4", "run5", "run2"]
    assert left_out["run3"].startswith("attack lr missing")
    assert "must be a run's manifest, a mapping" in left_out["run4"]
    assert "summary.json" in left_out["run5"]
    assert left_out["run2"] == "run6 audits the same checkpoint"
    assert [step["run"] for step in read_object(capsys, tmp_path)["steps"]] == ["run1", "run6"]


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "RUNS: must be a directory of run directories" in refused(capsys, tmp_path / "nowhere")
    assert "RUNS: must hold a finished audit, got no run directory" in refused(capsys, tmp_path)
    write_audit(tmp_path, 1, None, MEMBER)
    assert "RUNS: must hold a finished audit, got run1 (attack lr missing" in refused(capsys, tmp_path)
    write_audit(tmp_path, 2, False, MEMBER)
    write_audit(tmp_path, 3, False, MEMBER, **{"model.kwargs": {"num_classes": 20}})
    said = refused(capsys, tmp_path)
    assert "RUNS: must hold audits of one training, got 2: " in said
    assert all(name in said for name in ("(run2)", "(run3)", "choose a folder that holds the runs of one"))


@pytest.mark.parametrize(
    ("rows", "n", "said"),
    [
        ({}, N + 1, "got 1 others and 0 missing, such as train 200"),
        ({"sample_index": np.arange(N) + 1}, N, "got 1 others and 1 missing, such as train 0"),
        ({"split": np.array(["test"] * N)}, N, "got 200 others and 200 missing, such as test 0"),
        ({"label": (np.arange(N) == 7).astype(np.int32)}, N, "got another label of train 7"),
        ({"content": np.arange(N) + (np.arange(N) == 9)}, N, "got another input of train 9"),
    ],
)
def test_other_samples_are_refused(
    rows: dict[str, np.ndarray], n: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_audit(tmp_path, 1, False, MEMBER)
    write_audit(tmp_path, 2, False, (np.arange(n) < N // 2).astype(np.int8), rows=rows)
    line = refused(capsys, tmp_path)
    assert "run2/features.h5: samples: must be those of run1, " in line
    assert line.endswith(f"{said}\n")


def test_a_run_whose_features_are_gone_and_a_csv_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_audit(tmp_path / "runs", 1, False, MEMBER)
    code, _, err = run(capsys, tmp_path / "runs", "--csv", tmp_path / "no" / "records.csv")
    assert (code, err.count("\n")) == (2, 1)
    paths.features.unlink()
    assert "features.h5" in refused(capsys, tmp_path / "runs")


def joined(runs: Path) -> int:
    return run_main(lambda: join_all(Namespace(out=str(runs))))


def test_every_training_of_a_directory_is_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the nightly does: the worst verdict of a last step counts, and one training that cannot be joined alone."""
    for step, outcome in ((1, False), (2, True)):
        write_audit(tmp_path, step, outcome, MEMBER)
    write_audit(tmp_path, 3, False, MEMBER, **{"model.kwargs": {"num_classes": 20}})
    write_audit(tmp_path, 4, None, MEMBER)
    assert joined(tmp_path) == 3
    found = {file.stem: json.loads(file.read_text()) for file in (tmp_path / "trajectories").glob("*.json")}
    assert sorted(len(each["steps"]) for each in found.values()) == [1, 2]
    (leaks,) = [each for each in found.values() if each["first_leak"]]
    assert (leaks["first_leak"]["step"], leaks["first_leak"]["after_step"]) == ("1 2", "1 1")
    rows = (tmp_path / "trajectories" / f"{leaks['training']}.csv").read_text().splitlines()
    assert len(rows) == N + 1
    printed = capsys.readouterr().out
    assert f"Training {leaks['training']}, 2 checkpoints" in printed
    assert "First leak found: step 1 2 (run2), balanced accuracy 0.5500 (0.5100 to 0.5900)" in printed
    assert joined(tmp_path) == 3  # again, over what is there
    fewer = (np.arange(N + 1) < N // 2).astype(np.int8)
    write_audit(tmp_path, 5, False, fewer, **{"model.kwargs": {"num_classes": 20}})
    assert joined(tmp_path) == 3
    assert "samples: must be those of run3" in capsys.readouterr().err


@pytest.mark.parametrize(("outcomes", "code"), [((True, False), 0), ((False, "unknown"), 4), ((False, True), 3)])
def test_the_code_of_all_trainings_is_that_of_the_last_steps(
    outcomes: tuple[Any, ...], code: int, tmp_path: Path
) -> None:
    for step, outcome in enumerate(outcomes, 1):
        write_audit(tmp_path, step, outcome, MEMBER)
    assert joined(tmp_path) == code


def test_a_directory_without_audits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert joined(tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "trajectories").exists()


def test_outputs_that_are_equal_by_chance_in_one_epoch_make_no_other_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`content` of imports is of their outputs, which change from step to step."""
    for epoch in range(2):
        z = np.random.default_rng(epoch).normal(size=(N, 4)).astype(np.float32)
        z[1 + epoch] = z[0]
        np.savez(tmp_path / f"epoch_{epoch}.npz", logits=z, label=np.zeros(N, int), member=np.arange(N) % 2)
        raw = a_raw_config(f"epoch_{epoch}.npz") | {"gate": {"weak_model": True}}
        (tmp_path / f"epoch_{epoch}.yaml").write_text(yaml.safe_dump(raw))
        main(["run", str(tmp_path / f"epoch_{epoch}.yaml"), "--out", str(tmp_path / "runs" / f"epoch_{epoch}")])
    capsys.readouterr()
    assert len(read_object(capsys, tmp_path / "runs")["steps"]) == 2


def import_epochs(folder: Path, members: list[np.ndarray], *, losses: bool = False) -> Path:
    """Real audits of outputs that grow surer of members by the epoch, of samples in one order."""
    rng = np.random.default_rng(0)
    label = rng.integers(4, size=len(members[0]))
    for epoch, member in enumerate(members):
        logits = rng.normal(size=(len(label), 4)).astype(np.float32)
        logits[np.arange(len(label)), label] += (1 + 3 * epoch * member).astype(np.float32)
        arrays = {"loss": loss(logits, label)} if losses else {"logits": logits, "label": label}
        np.savez(folder / f"epoch_{epoch}.npz", member=member, **arrays)
        raw = a_raw_config(f"epoch_{epoch}.npz")
        raw["gate"] = {"weak_model": True}
        (folder / f"epoch_{epoch}.yaml").write_text(yaml.safe_dump(raw))
        code = main(["run", str(folder / f"epoch_{epoch}.yaml"), "--out", str(folder / "runs" / f"epoch_{epoch}")])
        assert code in (0, 3, 4)
    return folder / "runs"


def test_real_audits_of_imported_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = np.random.default_rng(1).permutation(2000)
    members = [(order < n).astype(np.int8) for n in (1000, 1000, 1300)]
    runs = import_epochs(tmp_path, members)
    capsys.readouterr()
    found = read_object(capsys, runs)
    assert [step["run"] for step in found["steps"]] == ["epoch_0", "epoch_1", "epoch_2"]
    assert [step["step"] for step in found["steps"]] == ["0", "1", "2"]
    assert found["steps"][-1]["outcome"] == "leak"
    assert found["steps"][-1]["attack"] == "threshold_loss"
    assert found["first_leak"]["run"] == "epoch_1"
    update = found["updates"][-1]
    assert (update["n_arrived"], update["n_stayed"]) == (300, 700)
    assert update["auc"]["low"] > 0.6
    assert run(capsys, runs, "--csv", tmp_path / "records.csv")[0] == 3
    rows = list(csv.DictReader((tmp_path / "records.csv").read_text().splitlines()))
    assert sorted(int(row["index"]) for row in rows) == list(range(2000))
    assert all(int(row["member"]) == members[-1][int(row["index"])] for row in rows)
    shutil.copytree(runs / "epoch_2", runs / "again")
    assert read_object(capsys, runs)["left_out"] == {"again": "epoch_2 audits the same checkpoint"}


def test_real_audits_of_losses_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = import_epochs(tmp_path, [(np.arange(400) < n).astype(np.int8) for n in (200, 300)], losses=True)
    capsys.readouterr()
    text = run(capsys, runs, "--csv", tmp_path / "records.csv")[1]
    assert "Update attack: not run, because it needs logits, and an audit is of losses alone." in text
    rows = list(csv.DictReader((tmp_path / "records.csv").read_text().splitlines()))
    assert {(row["split"], row["label"]) for row in rows} == {("outputs", "")}
    assert all(float(row["lt_iqr"]) * 2 == pytest.approx(float(row["fluctuation"])) for row in rows)  # of two steps
