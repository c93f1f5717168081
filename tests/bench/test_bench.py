"""The numbers of the bench: closed forms, and a whole run on a few rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import process_tree
import pytest
import scaling
from running import REPO


class TestListMakespan:
    def test_closed_forms(self) -> None:
        assert scaling.list_makespan([], 3) == 0
        assert scaling.list_makespan([2.0, 1.0, 1.0], 2) == 2
        assert scaling.list_makespan([1.0, 1.0, 2.0], 2) == 3
        assert scaling.list_makespan([1.0] * 10, 4) == 3
        assert scaling.list_makespan([5.0, 1.0, 1.0], 8) == 5

    def test_stock_goes_method_after_method_and_refits_on_one_core(self) -> None:
        methods = {"a": {"task_seconds": [1.0] * 8, "refit_seconds": 3.0},
                   "b": {"task_seconds": [2.0], "refit_seconds": 1.0}}
        assert scaling.stock_makespan({"methods": methods}, 4) == 2 + 3 + 2 + 1


class TestCoreUse:
    @staticmethod
    def task(started: float, seconds: float, share: float = 1.0) -> dict[str, float]:
        return {"started": started, "seconds": seconds, "cpu_seconds": share * seconds}

    def test_full(self) -> None:
        tasks = [self.task(1, 4), self.task(1, 2), self.task(3, 2), self.task(5, 9)]  # the last one runs alone
        assert scaling.core_use(tasks, 2) == pytest.approx(1.0)

    def test_gaps_waiting_and_the_last_tasks_share(self) -> None:
        tasks = [self.task(0, 2), self.task(0, 4, 0.5), self.task(3, 5)]
        assert scaling.core_use(tasks, 2) == pytest.approx((2 + 2 + 1) / 8)


def test_cpu_and_memory_of_a_process_tree(tmp_path: Path) -> None:
    """A child that holds 200 MiB while its own child computes."""
    hold = "import numpy, subprocess, sys; a = numpy.ones(200 << 17); subprocess.run([sys.executable, *sys.argv[1:]])"
    before = process_tree.cpu_seconds()
    spin = "import time\nwhile time.process_time() < 1: pass"
    usage = process_tree.run_measured([sys.executable, "-c", hold, "-c", spin])
    assert 200 < usage.peak_mib < 300
    assert 1.0 <= process_tree.cpu_seconds() - before < 4.0
    with pytest.raises(subprocess.CalledProcessError):
        process_tree.run_measured([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.slow
def test_a_small_run(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--rows", "240", "--columns", "6", "--methods", "lr", "knn", "--contestants", "stock", "shared"]
    command = [sys.executable, str(REPO / "tests" / "bench" / "attack_stage.py"), *options, "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    assert list(found) == ["stock", "shared"]
    stock, shared = (found[name]["methods"]["knn"] for name in found)
    assert stock["scores"] == shared["scores"]
    assert stock["n_right"] == shared["n_right"]
    bound = "max(longest search task + refit, total / cores)"
    for heading in ("core use", "held-out accuracy", "largest difference", bound):
        assert heading in result.stdout


class TestNetworks:
    def test_names_and_settings_belong_together(self) -> None:
        named = [network.name for network in networks.NETWORKS]
        assert len(set(named)) == len(named)
        assert {wrong.network for wrong in networks.WRONG_SETTINGS} == set(named)

    @pytest.mark.slow
    @pytest.mark.parametrize("leaks", [True, False])
    def test_one_network_that_leaks_and_one_that_does_not(self, tmp_path: Path, leaks: bool) -> None:
        pytest.importorskip("mindspore")
        (network,) = (network for network in networks.NETWORKS if network.name == "one_logit")
        line, right = networks.row(networks.Cell(network, leaks, tmp_path))
        assert right, line


class TestWhichAttack:
    def test_a_target_has_whole_pairs_and_never_its_complement(self) -> None:
        which = pytest.importorskip("which_attack")
        for target in range(18):
            for k in (1, 2, 4, 8, 16):
                found = which.references_of(18, target, k)
                assert len(set(found)) == k
                assert not {target, target ^ 1} & set(found)
                assert k == 1 or {each ^ 1 for each in found} == set(found)

    def test_a_cell_and_what_few_nonmembers_resolve(self) -> None:
        which = pytest.importorskip("which_attack")
        assert which.cell([0.5, 0.25, 1.0]) == ".500 (.250 to 1.000)"
        member = np.arange(4000) % 2 == 0
        assert list(which.measured(member, np.arange(4000.0))) == ["AUC", "TPR at 1.0% FPR"]
        assert which.measured(member, member.astype(float)) == {"AUC": 1.0, "TPR at 1.0% FPR": 1.0}
        more = np.arange(20_000) % 2 == 0
        assert "TPR at 0.1% FPR" in which.measured(more, np.arange(20_000.0))

    def test_a_small_pool_is_attacked(self, capsys: pytest.CaptureFixture) -> None:
        """Two pairs: one plays the target, the other are its references."""
        which = pytest.importorskip("which_attack")
        pool = which.make_pool(400, 4, 30, seed=1)
        assert capsys.readouterr().err.count("of its samples") == 4
        scores = which.scores_of(pool, 0, 2, ["threshold_loss", "rmia", "lira"])
        assert list(scores) == ["threshold_loss", "rmia"]  # two references a side are too few for `lira`
        assert which.measured(pool.included[0], scores["rmia"])["AUC"] > 0.6
