"""`audit` says of arrays what the stages say of the same rows, in every form, or refuses them in a line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import REPO, code_blocks

import mia_batch
from mia_batch import signals
from mia_batch.api.arrays import as_array, read_rows
from mia_batch.api.audit import audit
from mia_batch.api.result import AuditResult
from mia_batch.attacks.lira import lira_fixed
from mia_batch.attacks.sides import References
from mia_batch.errors import InputError
from mia_batch.inputs import NO_GROUP, STATISTICS, describe
from mia_batch.metrics.registry import METRICS
from mia_batch.process.exit_codes import BY_OUTCOME, run_main
from mia_batch.process.stop import StopRequest
from mia_batch.report.html import to_html
from mia_batch.report.summary import Summary, read_summary, to_csv
from mia_batch.rundir.claim import claim
from mia_batch.rundir.features import FeatureStore, block_dtype
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config
from mia_batch.stages.arguments import add_verdict_arguments, stage_parser
from mia_batch.stages.attack import attack
from mia_batch.stages.import_outputs import import_into
from mia_batch.stages.plan import make_manifest
from mia_batch.stages.reduce import reduce

N, CLASSES = 400, 4
METHODS = [{"method": "lr", "params": {"C": [0.1, 1.0]}}, {"method": "threshold_loss"}, {"method": "correctness"}]
QUICK: dict[str, Any] = {"attacks": ["threshold_loss", "correctness"], "n_jobs": 1, "eval": "holdout"}


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    """A model that is surer of members; images, of which three are on both sides; groups of two."""
    rng = np.random.default_rng(0)
    member, label = np.repeat([1, 0], N // 2).astype(np.int8), rng.integers(0, CLASSES, N)
    sure = 2 + 2 * member + rng.normal(0, 0.3, N)
    logits = rng.normal(size=(N, CLASSES)) + sure[:, None] * (label[:, None] == np.arange(CLASSES))
    images = rng.integers(0, 256, (N, 4, 5, 3), dtype=np.uint8)
    images[N // 2 : N // 2 + 3] = images[:3]
    return {
        "logits": logits.astype(np.float32), "labels": label, "member": member, "inputs": images,
        "groups": np.arange(N) // 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def found(rows: dict[str, np.ndarray]) -> AuditResult:
    return audit(rows["logits"], rows["labels"], rows["member"], **QUICK)


def made_references(n_pairs: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Answers of references in pairs, (K, N, CLASSES), that are surer of what they were trained on, and inclusion."""
    rng = np.random.default_rng(3)
    coins = rng.integers(0, 2, (n_pairs, N))
    inside = np.stack([coins, 1 - coins], axis=1).reshape(-1, N)
    label = np.random.default_rng(0).integers(0, CLASSES, N)
    z = rng.normal(size=(len(inside), N, CLASSES))
    return z + (1 + 2 * inside)[:, :, None] * (label[:, None] == np.arange(CLASSES)), inside


def bare(summary: Summary) -> dict[str, Any]:
    """The summary without where it comes from, the files beside it, the split's name, and times."""
    plain = summary.model_dump()
    del plain["provenance"], plain["files"]
    for method in plain["methods"].values():
        del method["provenance"], method["seconds"]
    for sample in plain["records"]["exposed"]:
        del sample["split"]
    return plain


# --- the same as the stages ------------------------------------------------------------------------------------------


def extracted(rows: dict[str, np.ndarray], config: Config, paths: RunPaths) -> None:
    """features.h5 as extract writes it."""
    manifest = claim(paths, make_manifest(config))
    columns = {"member": rows["member"], "label": rows["labels"], "group": rows["groups"]}
    columns |= {"sample_index": np.arange(N), "split": np.full(N, "row")}
    block = np.zeros(N, dtype=block_dtype(CLASSES))
    block["row"], block["logits"] = np.arange(N), rows["logits"]
    for name in ("content", "statistics"):
        block[name] = describe(rows["inputs"])[name]
    with FeatureStore.create(
        paths.features, columns, CLASSES, manifest.model_dump(include={"config", "digests"})
    ) as store:
        store.write(block)


@pytest.mark.parametrize("kind", ["extracted", "logits", "probabilities", "losses"])
def test_it_says_what_the_stages_say(
    rows: dict[str, np.ndarray], write_config: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture,
    kind: str,
) -> None:
    how = "cross_fit" if kind == "extracted" else "holdout"
    own = {"attack.methods": METHODS, "attack.seed": 3, "attack.eval": how, "gate": {"alpha": 0.1}}
    given = {"logits": rows["logits"], "labels": rows["labels"], "member": rows["member"], "groups": rows["groups"]}
    z = rows["logits"].astype(np.float64)
    given |= {"probabilities": np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None])} if kind == "probabilities" else {}
    given |= {"losses": signals.loss(rows["logits"], rows["labels"])} if kind == "losses" else {}
    given = {name: value for name, value in given.items() if name != "logits" or kind in ("logits", "extracted")}
    paths = RunPaths(tmp_path / "run")
    if kind == "extracted":
        path = write_config(own)
        extracted(rows, load_config(path), paths)
        given["inputs"] = rows["inputs"]
    else:
        names = {"labels": "label", "groups": "group", "losses": "loss"}
        np.savez(tmp_path / "o.npz", **{names.get(name, name): value for name, value in given.items()})
        path = write_config(own | {"model": None, "extract": None, "data": {"source": "outputs", "files": "o.npz"}})
        assert import_into(load_config(path), paths, StopRequest()) == 0
    assert attack(load_config(path), paths, None, StopRequest()) == 0
    parser = stage_parser("reduce", "")
    add_verdict_arguments(parser)
    code = run_main(lambda: reduce(parser.parse_args([str(path), "--out", str(paths.root)])))
    printed, _, page = capsys.readouterr().out.rpartition("\nReport: ")

    result = audit(**given, attacks=METHODS, gate={"alpha": 0.1}, seed=3, cv=2, n_jobs=1, eval=how)
    assert bare(result.summary) == bare(read_summary(paths.summary_json))
    result.write_records(tmp_path / "records.csv")
    same = [file.read_text().replace("outputs", "row") for file in (tmp_path / "records.csv", paths.records)]
    assert same[0].splitlines()[0] == same[1].splitlines()[0]
    assert sorted(same[0].splitlines()) == sorted(same[1].splitlines())
    assert code == BY_OUTCOME[result.verdict.outcome]
    assert page == f"{paths.root / 'report.html'}\n"
    assert f"{result!r}\n" == f"{result}\n" == printed
    assert result.verdict.sentence in " ".join(printed.split())
    assert result.summary.samples.n_twins == (6 if kind == "extracted" else None)


def test_a_model_that_knows_nothing_is_not_evaluable_unless_it_is_meant_so(rows: dict[str, np.ndarray]) -> None:
    noise = np.random.default_rng(1).normal(size=(N, CLASSES))
    given = (noise, rows["labels"], rows["member"])
    result = audit(*given, **QUICK)
    assert result.verdict.leak is None
    assert "no better than guessing" in result.verdict.sentence
    assert dict(result.metrics) == {}
    assert set(result.summary.methods) == {"threshold_loss", "correctness"}
    assert audit(*given, weak_model=True, **QUICK).metrics["threshold_loss"]["auc"].value == pytest.approx(0.5, abs=0.1)


# --- what it takes ---------------------------------------------------------------------------------------------------


class Torch:
    """The part of PyTorch's tensors that keeps `numpy` from working at once."""

    def __init__(self, values: np.ndarray, *, grad: bool = True, cpu: bool = False, half: bool = False) -> None:
        self.values, self.grad, self.on_cpu, self.half = values, grad, cpu, half

    def detach(self) -> Torch:
        return Torch(self.values, grad=False, cpu=self.on_cpu, half=self.half)

    def cpu(self) -> Torch:
        return Torch(self.values, grad=self.grad, cpu=True, half=self.half)

    def float(self) -> Torch:
        return Torch(self.values, grad=self.grad, cpu=self.on_cpu)

    def numpy(self) -> np.ndarray:
        if self.grad or not self.on_cpu:
            raise RuntimeError("requires grad, or is on another device")
        if self.half:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def test_every_form_is_the_same_rows(rows: dict[str, np.ndarray]) -> None:
    logits, labels, member = (rows[name] for name in ("logits", "labels", "member"))
    sides = [(logits[member == side], labels[member == side]) for side in (1, 0)]
    forms: list[tuple[dict[str, Any], Any, Any]] = [
        ({"logits": logits.tolist(), "labels": labels.tolist()}, member.astype(bool).tolist(), None),
        ({"logits": Torch(logits), "labels": Torch(labels.astype(np.int16))}, Torch(member.astype(np.float32)), None),
        ({"logits": Torch(logits, half=True), "labels": labels.astype(np.uint8)}, member, None),
        ({}, sides[0], list(sides[1])),
        ({}, *({"logits": z, "labels": y, "groups": None} for z, y in sides)),
    ]
    expected = read_rows({"logits": logits, "labels": labels}, member, None).features
    for form in forms:
        features = read_rows(*form).features
        for name in ("logits", "label", "member", "loss"):
            assert np.array_equal(getattr(features, name), getattr(expected, name))
            assert getattr(features, name).dtype == getattr(expected, name).dtype


def test_one_output_of_two_classes_is_two() -> None:
    z, labels, member = np.array([-2.0, 0.5, 3.0]), [0, 1, 1], [1, 0, 1]
    two = read_rows({"logits": np.column_stack([0 * z, z]), "labels": labels}, member, None).features
    for one in (z, z[:, np.newaxis]):
        assert np.array_equal(read_rows({"logits": one, "labels": labels}, member, None).features.logits, two.logits)
    p = 1 / (1 + np.exp(-z))
    found = read_rows({"probabilities": p, "labels": labels}, member, None).features
    assert found.loss == pytest.approx(two.loss, rel=1e-5)
    certain = read_rows({"probabilities": [1.0, 0.0, 1e-60], "labels": labels}, member, None).features
    assert np.isfinite(certain.logits).all()
    assert certain.loss[1] == certain.loss[2] > 100


def test_two_sides_are_audited(rows: dict[str, np.ndarray], found: AuditResult) -> None:
    member, nonmember = ((rows["logits"][rows["member"] == s], rows["labels"][rows["member"] == s]) for s in (1, 0))
    assert bare(audit(member=member, nonmember=nonmember, **QUICK).summary) == bare(found.summary)


GROUPS: dict[str, tuple[Any, Any]] = {
    "words": (["a", "b", "-1"], ["b", "-1", "c"]),
    "bytes": (["é".encode(), b"b", b"-1"], [b"b", b"-1", "è".encode()]),
    "numbers": ([5, 7, -1], [7, -1, 9]),
    "types of numbers": (np.array([5, 7, -1], np.int16), [7, -1, 9]),
    "unsigned on one side": ([2**53, 7, -1], np.array([7, 2**53 + 1, 2**64 - 1], np.uint64)),
}


@pytest.mark.parametrize("case", GROUPS)
def test_groups_have_names_over_both_sides(case: str) -> None:
    sides = [{"logits": np.eye(3), "labels": [0, 1, 2], "groups": names} for names in GROUPS[case]]
    found = read_rows({}, *sides).features.group
    assert found is not None
    assert found[1] == found[3]
    alone = found[[i for i in range(6) if i not in (1, 3) and found[i] != NO_GROUP]]
    assert len({*alone.tolist(), found[1]}) == len(alone) + 1
    unsigned = case == "unsigned on one side"
    assert list(found == NO_GROUP) == [False, False, True, False, not unsigned, False]


def test_probabilities_are_as_good_as_logits(rows: dict[str, np.ndarray], found: AuditResult) -> None:
    z = rows["logits"].astype(np.float64)
    p = np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None])
    result = audit(probabilities=p, labels=rows["labels"], member=rows["member"], **QUICK)
    for name, metrics in found.metrics.items():
        for metric, estimate in metrics.items():
            assert result.metrics[name][metric].value == pytest.approx(estimate.value, abs=0.01, nan_ok=True)
    assert audit(p, rows["labels"], rows["member"], **QUICK).verdict.leak is None  # declared logits: not evaluable


@pytest.mark.parametrize("labelled", [True, False])
def test_of_losses_alone_evaluability_is_not_known(
    rows: dict[str, np.ndarray], found: AuditResult, labelled: bool
) -> None:
    loss = signals.loss(rows["logits"], rows["labels"])
    result = audit(
        losses=loss.tolist(), labels=rows["labels"] if labelled else None, member=rows["member"],
        attacks=["threshold_loss", "correctness"], n_jobs=1, eval="holdout",
    )  # fmt: skip
    assert result.verdict.outcome == "leak"
    assert result.metrics["threshold_loss"]["auc"] == found.metrics["threshold_loss"]["auc"]
    assert "correctness" not in result.metrics
    assert any("evaluable is not known: losses alone" in text for text in result.verdict.cautions)
    assert any(text.startswith("not run, because it needs logits") for text in result.verdict.cautions)
    sides = {name: {"losses": loss[rows["member"] == side]} for name, side in (("member", 1), ("nonmember", 0))}
    again = audit(**sides, attacks=["threshold_loss"], n_jobs=1, eval="holdout")
    assert again.metrics["threshold_loss"] == result.metrics["threshold_loss"]


@pytest.mark.parametrize(
    "gate", [None, "tutorial", {"threshold": 0.6, "metrics": ["auc"]}, {"rule": "any_above", "metrics": ["accuracy"]}]
)
def test_sides_that_are_exchanged_pass_no_gate(rows: dict[str, np.ndarray], gate: Any) -> None:
    wrong = {"member": 1 - rows["member"], "attacks": ["threshold_loss"], "gate": gate, "n_jobs": 1}
    verdict = audit(rows["logits"], rows["labels"], **wrong).verdict
    assert verdict.outcome == "inconclusive"
    assert "Look whether the two sides are exchanged" in verdict.sentence


@pytest.mark.parametrize("gate", [None, "tutorial", {"threshold": 0.6, "metrics": ["auc"]}])
def test_probabilities_that_are_rounded_hide_no_leak(gate: Any) -> None:
    rng, member = np.random.default_rng(1), np.repeat([1, 0], N // 2)
    wrong = 10 ** np.where(member, rng.uniform(-9, -7, N), rng.uniform(-6, -4.5, N))
    labels, options = rng.integers(0, 2, N), {**QUICK, "gate": gate, "member": member}
    p = np.where(np.arange(2) == labels[:, None], 1 - wrong[:, None], wrong[:, None])
    assert audit(probabilities=p, labels=labels, **options).verdict.outcome == "leak"
    verdict = audit(probabilities=np.round(p, 4), labels=labels, **options).verdict
    assert verdict.outcome == "inconclusive"
    assert "100.0% of members and 100.0% of non-members have one and the same confidence" in verdict.sentence


def test_a_leak_that_no_attack_was_asked_to_see_does_not_pass() -> None:
    rng, member = np.random.default_rng(1), np.repeat([1, 0], 2 * N)
    labels = rng.integers(0, CLASSES, 4 * N)
    sure = 8 + 12 * member + rng.normal(size=4 * N)
    logits = rng.normal(size=(4 * N, CLASSES)) + sure[:, None] * (labels[:, None] == np.arange(CLASSES))
    verdict = audit(logits, labels, member, attacks=["correctness"], n_jobs=1).verdict
    assert verdict.outcome == "inconclusive"
    assert verdict.sentence.endswith("Add the attack threshold_confidence.")
    assert any("the model is right on all 800 members" in text for text in verdict.cautions)


def test_attacks_have_grids_of_arrays(rows: dict[str, np.ndarray]) -> None:
    given = (rows["logits"], rows["labels"], rows["member"])
    result = audit(*given, attacks={"lr": {"C": np.logspace(-2, 0, 2)}, "knn": {
        "n_neighbors": (3, np.int64(5)), "weights": ["distance"]}}, eval="holdout", cv=2, n_jobs=1)
    assert [method.n_candidates for method in result.summary.methods.values()] == [2, 2]
    assert result.summary.samples.n_scored == N // 5


def test_inputs_that_are_no_images_are_hashed(rows: dict[str, np.ndarray]) -> None:
    vectors = rows["inputs"].reshape(N, -1).astype(np.float32) - 100
    result = audit(rows["logits"], rows["labels"], rows["member"], inputs=list(vectors), **QUICK)
    assert result.summary.samples.n_twins == 6
    assert result.summary.checks is not None
    assert result.summary.checks.blind.statistics
    twins = np.r_[:3, N // 2 : N // 2 + 3]
    assert result.attacks["correctness"].provenance["n_fit"] + result.attacks["correctness"].evaluated.sum() == N - 6
    assert not result.attacks["correctness"].evaluated[twins].any()


PIXELS = np.random.default_rng(5).integers(0, 256, (4, 6, 5, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("inputs", "image"),
    [(PIXELS, True), (PIXELS.astype(np.float32), True), (PIXELS[..., :3] / 255, False), (PIXELS - 300.0, False)],
    ids=["bytes of four channels", "floats", "floats of 0 to 1", "normalised"],
)
def test_statistics_of_inputs_are_exact(inputs: np.ndarray, image: bool) -> None:
    """Pixels are counted in sixteenths of 0..255, in which floats of 0 to 1 would be 16 steps."""
    given = {"logits": np.eye(4), "labels": range(4), "inputs": inputs}
    statistics = read_rows(given, [1, 1, 0, 0], None).features.statistics
    assert statistics is not None
    found = dict(zip(STATISTICS, statistics.T, strict=True))
    assert found["mean"] == pytest.approx(inputs.mean(axis=(1, 2, 3)), rel=1e-6)
    assert found["maximum"] == pytest.approx(inputs.max(axis=(1, 2, 3)), rel=1e-6)
    assert (found["height"] == 6).all() == image  # of arrays the number of values


# --- what it refuses -------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"logits": None}, "logits: must be given, or probabilities or losses instead, got neither"),
    ({"logits": np.zeros((N, 0))}, r"logits: must be numbers of shape \(samples, classes\), .* got float64 \(400, 0\)"),
    ({"logits": np.zeros((N, 2, 2))}, r"logits: must be numbers .* got float64 \(400, 2, 2\)"),
    ({"logits": np.zeros(N)}, "labels: must be in 0..1, got"),
    ({"logits": None, "probabilities": np.full(N, 1.1)}, "probabilities: must be at least 0 and sum to 1"),
    ({"logits": None, "probabilities": np.full((N, 2), [-0.1, 1.1])}, "probabilities: must be at least 0"),
    ({"logits": np.full((N, 2), "a")}, "logits: must be numbers of shape"),
    ({"logits": [[1.0, 2.0], [3.0]]}, "logits: must be an array, got list"),
    ({"logits": {"a": 1}}, "logits: must be an array of numbers or words, got dict of object"),
    ({"logits": np.full((N, CLASSES), np.nan)}, "logits: must be finite, got NaN or infinity at sample 0"),
    ({"logits": np.full((N, CLASSES), 1e300)}, "logits: must be finite"),
    ({"logits": np.ma.masked_less(np.zeros((N, CLASSES)), 1)}, "logits: must have all its values"),
    ({"labels": None}, "labels: must be given beside logits"),
    ({"labels": np.zeros(3, int)}, r"labels: must have shape \(400,\) to match logits, got \(3,\)"),
    ({"labels": np.full(N, CLASSES)}, "labels: must be in 0..3, got 4 at sample 0"),
    ({"labels": np.zeros(N)}, "labels: must be integers, got dtype float64"),
    ({"member": None}, "member: must be given: 1 for members"),
    ({"member": np.full(N, 2)}, "member: must be 0 or 1 for each sample, got 2"),
    ({"member": np.ones(N)}, r"member: must have both 0 and 1, got \[1\]"),
    ({"member": np.ones(3)}, r"member: must have shape \(400,\) to match logits, got \(3,\)"),
    ({"nonmember": (1, 2)}, "logits: must be in member=... and nonmember=..."),
    ({"logits": None, "labels": None, "nonmember": 3, "member": (1, 2, 3)}, r"member: must be \(logits, labels\) or a"),
    ({"logits": None, "labels": None, "member": {"logit": 1}, "nonmember": 1}, "member.logit: unknown name; valid"),
    ({"logits": None, "labels": None, "member": (np.zeros((9, 3)), np.zeros(9, int)),
      "nonmember": (np.zeros((9, 2)), np.zeros(9, int))}, "nonmember.logits: must have 3 classes as member has, got 2"),
    ({"logits": None, "labels": None, "nonmember": (np.zeros((9, 3)), np.zeros(9, int)),
      "member": {"logits": np.zeros((9, 3)), "labels": np.zeros(9, int), "groups": range(9)}},
     "nonmember.groups: must be given too"),
    ({"logits": None, "labels": None, "member": {"losses": [1, 2], "groups": [1, 2]},
      "nonmember": {"losses": [1, 2], "groups": ["1", "2"]}},
     "nonmember.groups: must be integers as member's are, got words"),
    ({"logits": None, "labels": None, "member": {"losses": [1, 2]}, "nonmember": {"losses": [1], "inputs": [[1]]}},
     "member.inputs: must be given too"),
    ({"logits": None, "labels": None, "member": (np.zeros((9, 3)), np.zeros(9, int))},
     r"nonmember: must be given beside member=\(logits, labels\)"),
    ({"logits": None, "labels": None, "member": {"losses": [1]}}, "nonmember: must be given beside member"),
    ({"logits": None, "labels": None, "member": [1, 0]}, "logits: must be given, or probabilities or losses instead"),
    ({"losses": np.zeros(N)}, "logits: must be given, or probabilities or losses instead, got both"),
    ({"logits": None, "losses": np.zeros((N, 2))}, r"losses: must be numbers of shape \(samples,\), got float64"),
    ({"logits": None, "losses": np.full(N, -1)}, "losses: must be finite and at least 0, got -1.0 at sample 0"),
    ({"logits": None, "losses": np.full(N, np.inf)}, "losses: must be finite and at least 0, got inf at sample 0"),
    ({"logits": None, "losses": np.zeros(N), "labels": np.zeros(3, int)}, r"labels: must be integers of shape"),
    ({"probabilities": np.zeros((N, CLASSES))}, "logits: must be given, or probabilities or losses instead, got both"),
    ({"logits": None, "probabilities": np.ones((N, 2))}, "probabilities: must be at least 0 and sum to 1"),
    ({"groups": np.zeros(N)}, "groups: must be integers or words of shape"),
    ({"groups": np.zeros(2, int)}, "groups: must be integers or words of shape"),
    ({"inputs": np.zeros((3, 2))}, "inputs: must be an array or a list of 400 arrays, got 3"),
    ({"inputs": 5}, "inputs: must be an array or a list of 400 arrays, got int"),
    ({"inputs": [np.zeros(0)] * N}, r"inputs\[0\]: must be numbers, got float64 of shape \(0,\)"),
    ({"inputs": np.full((N, 2), "a")}, r"inputs\[0\]: must be numbers, got <U1"),
    ({"logits": None, "labels": None, "member": {"logits": np.eye(3), "labels": range(3), "inputs": np.zeros((3, 2))},
      "nonmember": {"logits": np.eye(3), "labels": range(3), "inputs": np.zeros((3, 1, 1, 3), np.uint8)}},
     r"nonmember.inputs: must be images, .* of 0 to 255, on both sides or on neither, got array and image"),
    ({"attacks": ["lrr"]}, r"attack.methods\[0\].method: must be one of .*, got 'lrr'"),
    ({"attacks": []}, "attack.methods: must have at least 1, got"),
    ({"attacks": 5}, "attacks: must be names, or names with their grids, got int"),
    ({"attacks": [5]}, r"attack.methods\[0\]: must be a mapping, got 5"),
    ({"attacks": {"lr": 5}}, r"attack.methods\[0\].params: must be a valid dictionary, got 5"),
    ({"attacks": ["lr", "lr"]}, "attack.methods: must name each once"),
    ({"attacks": {"lr": {"C": [-1.0]}}}, r"attack.methods\[0\].params.C: must be a float in the range"),
    ({"attacks": {"lr": {"C": np.array([])}}}, r"attack.methods\[0\].params.C: must have at least one value"),
    ({"gate": "tutoral"}, "gate: must be tutorial, or a mapping, got 'tutoral'"),
    ({"gate": {"alpha": 2}}, "gate.alpha: must be .*got 2"),
    ({"gate": {"alhpa": 0.1}}, "gate.alhpa: unknown key; valid keys: rules, alpha"),
    ({"weak_model": "yes"}, "weak_model: must be true or false, got 'yes'"),
    ({"n_jobs": 0}, "n_jobs: must be -1 or a positive integer, got 0"),
    ({"n_jobs": -2}, "n_jobs: must be -1 or a positive integer, got -2"),
    ({"n_jobs": True}, "n_jobs: must be -1 or a positive integer, got True"),
    ({"n_jobs": 1.0}, "n_jobs: must be -1 or a positive integer, got 1.0"),
    ({"sead": 1}, "sead: unknown option; valid options: .*seed"),
    ({"seed": -1}, "attack.seed: must be greater than or equal to 0, got -1"),
    ({"cv": 200}, "attack.cv: must be at most"),
    ({"eval_fraction": 0.001, "eval": "holdout"}, "attack.eval_fraction: must leave members and non-members"),
    ({"max_duplicates": 2.0}, "data.max_duplicates: must be"),
    ({"logits": None, "losses": np.zeros(N), "labels": np.full(N, 2**31)}, "labels: must be in 0..2147483647, got"),
    ({"logits": None, "losses": np.zeros(N), "labels": np.full(N, 2**63, np.uint64)}, "labels: must be in 0..21474836"),
    ({"logits": None, "labels": None, "member": {"losses": [1, 2]}, "nonmember": {"losses": [1, 2]}},
     "nonmember: must be other samples than member, got the same losses"),
    ({"references": np.zeros((2, N, CLASSES))}, r"references: must be \(logits, included\), got ndarray"),
    ({"references": (3, np.zeros((2, N)))}, rf"references\[0\]: must be of shape \(references, {N}, {CLASSES}\), got"),
    ({"references": (made_references()[0][::-1], made_references()[1])},
     r"references\[1\]: must have a row for each reference, in their order, got phi of references\[0\]\[0\] tells"),
    ({"references": (np.zeros((2, N, 3)), np.zeros((2, N)))}, r"references\[0\]\[0\]: must be of shape"),
    ({"references": (np.zeros((2, N, CLASSES)), np.zeros((2, 3)))}, r"references\[1\]: must be 0 or 1 of shape"),
    ({"references": (np.zeros((2, N, CLASSES)), np.full((2, N), 2))}, r"references\[1\]: must be 0 or 1 of shape"),
    ({"references": (np.zeros((2, N, CLASSES)), np.zeros((3, N)))}, r"references\[1\]: must have a row for"),
    ({"references": (made_references()[0], 1 - made_references()[1])}, r"references\[1\]: must be 1 where a reference"),
    ({"slices": ["class"]}, "slices: must be a mapping of names to values"),
    ({"slices": {"class": "yes"}}, "slices.class: must be True or False, got str"),
    ({"slices": {"ward": ["a"]}}, r"slices.ward: must be integers or words of shape \(400,\)"),
    ({"slices": {"ward": np.arange(N) + 0.5}}, r"slices.ward: must be integers or words of shape \(400,\)"),
    ({"fdr": 2}, "report.fdr: must be less than 1, got 2"),
    ({"nonmembers_used_for": "fun"}, "data.nonmembers_used_for: must be 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), BAD)
def test_what_is_wrong_is_one_line(rows: dict[str, np.ndarray], changes: dict[str, Any], line: str) -> None:
    given = {name: rows[name] for name in ("logits", "labels", "member")} | QUICK | changes
    with pytest.raises(InputError, match=f"^audit: {line}" if not line.startswith("got") else line) as refused:
        audit(**given)
    assert len(refused.value.problems) == 1
    assert isinstance(refused.value, ValueError)
    assert refused.value.__suppress_context__


def test_a_tensor_that_cannot_be_read_is_named() -> None:
    class Broken:
        def asnumpy(self) -> None:
            raise RuntimeError("the device has gone\nand more")

    with pytest.raises(InputError, match=r"^x: must be an array, got Broken: RuntimeError: the device has gone$"):
        as_array(Broken(), "x")


# --- what it gives ---------------------------------------------------------------------------------------------------


def test_a_frame_has_the_rows_of_summary_csv(found: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = found.to_frame()
    assert list(frame["method"].unique()) == list(found.metrics)
    assert frame[["method", "metric"]].to_csv(index=False).splitlines() == [
        ",".join(line.split(",")[:2]) for line in to_csv(found.summary).splitlines()
    ]
    for _, row in frame[frame["metric"].isin(METRICS)].iterrows():
        estimate = found.metrics[row["method"]][row["metric"]]
        assert row["value"] == pytest.approx(estimate.value, nan_ok=True)
        assert row["low"] == pytest.approx(estimate.low, nan_ok=True)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame needs pandas: pip install pandas$"):
        found.to_frame()


def test_the_plot_has_each_attacks_rates(found: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    ax = plt.figure().add_subplot()
    assert found.plot_roc(ax) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    curves = {line.get_label().split(" ")[0]: line for line in ax.get_lines() if " (TPR " in line.get_label()}
    assert list(curves) == list(found.metrics)
    for name, line in curves.items():
        fpr, tpr = line.get_data()
        reached = max(tpr[fpr <= 0.01])
        assert reached == pytest.approx(found.metrics[name]["tpr_at_fpr_0.01"].value)
        assert f"{reached:.3f} at 0.01" in line.get_label()
        step = np.diff(np.append(0, fpr))
        assert np.sum(step * (tpr + np.append(0, tpr[:-1])) / 2) == pytest.approx(found.metrics[name]["auc"].value)
    plt.close("all")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"^plot_roc needs matplotlib: pip install matplotlib$"):
        found.plot_roc()


class Tags(HTMLParser):
    """The tags of a page, all closed, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_a_table_and_escapes_what_it_shows(found: AuditResult) -> None:
    page = Tags(found._repr_html_())
    assert page.tags.count("tr") == 1 + len(found.metrics)
    assert found.verdict.sentence in page.text
    assert f"{found.metrics['threshold_loss']['accuracy'].value:.3f}" in page.text
    bad = "<script>alert('&')</script>"
    methods = {bad: found.summary.methods["correctness"].model_copy(update={"reason": bad})}
    verdict = found.summary.verdict.model_copy(update={"sentence": bad, "cautions": (bad,)})
    hostile = Tags(to_html(found.summary.model_copy(update={"methods": methods, "verdict": verdict})))
    assert "script" not in hostile.tags
    assert hostile.text.count(bad) == 4


def test_the_json_is_that_of_a_summary(found: AuditResult, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(found.to_json())
    assert read_summary(tmp_path / "summary.json") == found.summary
    assert found.summary.provenance["digests"].keys() == {"logits", "loss", "label", "member"}
    recall = found.summary.methods["correctness"].metrics["recall"].value
    assert recall == found.metrics["correctness"]["recall"].value


def test_references_and_slices_and_records(rows: dict[str, np.ndarray]) -> None:
    """The numbers are those of the core, and of the records the groups' names are kept."""
    logits, inside = made_references()
    given = {name: rows[name] for name in ("logits", "labels", "member")}
    wards, words = np.where(np.arange(N) % 4 < 2, "a", "b"), np.array([f"p{i // 2}" for i in range(N)])
    result = audit(
        **given, attacks=["threshold_loss", "lira_fixed", "lira_trajectory"], references=(logits, inside),
        groups=words, slices={"class": True, "ward": wards, "young": np.arange(N) % 2 == 0}, n_jobs=1, fdr=0.2,
    )  # fmt: skip
    phi = np.stack([signals.phi(each.astype(np.float32), rows["labels"]) for each in logits], axis=1)
    own = signals.phi(rows["logits"], rows["labels"])[:, None]
    naive = lira_fixed(References(own, phi[:, None, :], inside.T.astype(np.int8))).values[:, 0]
    assert result.attacks["lira_fixed"].scores == pytest.approx(naive)
    assert result.attacks["lira_trajectory"].not_run
    assert result.summary.slices is not None
    names = [each.name for each in result.summary.slices.slices]
    assert names == [*(f"class={i}" for i in range(CLASSES)), "ward=a", "ward=b", "young=False", "young=True"]
    assert result.summary.records is not None
    assert result.summary.records.fdr == 0.2
    frame = result.to_records()
    assert frame["group"].tolist() == words.tolist()
    assert frame["lira_fixed_score"].tolist() == pytest.approx(naive.tolist())
    assert result.summary.provenance["digests"].keys() >= {"reference_phi", "reference_in"}


def test_inclusion_in_another_order_than_the_samples_is_doubted(rows: dict[str, np.ndarray]) -> None:
    logits, inside = made_references()
    given = {name: rows[name] for name in ("logits", "labels", "member")}
    for stated, doubted in ((inside, 0), (np.random.default_rng(0).permutation(inside, axis=1), 1)):
        result = audit(**given, attacks=["threshold_loss", "lira_fixed"], references=(logits, stated), n_jobs=1)
        said = [each for each in result.verdict.cautions if "is in another order than the samples" in each]
        assert len(said) == doubted
        assert all(each.endswith("find nothing: lira_fixed.") for each in said)


# --- the manual ------------------------------------------------------------------------------------------------------


def test_the_manuals_examples_run(
    rows: dict[str, np.ndarray], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mia_batch.api.settings.available_cpus", lambda: 1)
    z = rows["logits"].astype(np.float64)
    names: dict[str, Any] = {name: rows[name] for name in ("logits", "labels", "member")}
    names["probabilities"] = np.exp(z - np.logaddexp.reduce(z, axis=1)[:, None])
    names |= dict(zip(("reference_logits", "included"), made_references(), strict=True))
    names["wards"] = np.where(np.arange(N) % 2, "a", "b")
    examples = [code for code in code_blocks(REPO / "docs" / "python.md") if "audit(" in code]
    found = []
    for code in examples:
        exec(code, names)
        found.append(set(names["result"].metrics))
    assert capsys.readouterr().out.splitlines()[-1]
    assert found[1:] == [{"threshold_loss", "knn"}, {"threshold_loss", "lira_fixed", "stack_lr"}]


# --- in a process of its own -----------------------------------------------------------------------------------------

SCRIPT = '''
import sys
import mia_batch
assert not {"numpy", "sklearn", "h5py"} & set(sys.modules), "import mia_batch must stay light"
import numpy as np
from mia_batch import audit
rng = np.random.default_rng(0)
member, labels = np.repeat([1, 0], 200), rng.integers(0, 3, 400)
logits = rng.normal(size=(400, 3)) + (2 + 4 * member)[:, None] * np.eye(3)[labels]
result = audit(logits, labels, member, attacks=["threshold_loss"], eval="holdout", n_jobs=2)
print(result.verdict.outcome, *({"mindspore", "mpi4py", "matplotlib"} & set(sys.modules)))
'''


def test_a_plain_script_needs_no_guard_and_neither_mindspore_nor_mpi(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mindspore.py").write_text("raise SystemExit('mindspore must not be imported')")
    (tmp_path / "mpi4py.py").write_text("raise SystemExit('mpi4py must not be imported')")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leak\n", "")


def test_the_package_gives_both_names_and_no_other() -> None:
    assert mia_batch.audit is audit
    assert {"audit", "MembershipInference", "__version__"} <= set(dir(mia_batch))
    with pytest.raises(AttributeError, match="has no attribute 'adit'"):
        mia_batch.adit  # noqa: B018


def halves(rows: dict[str, np.ndarray]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(logits, labels) of each side."""
    return tuple((rows["logits"][rows["member"] == side], rows["labels"][rows["member"] == side]) for side in (1, 0))


def test_the_same_outputs_on_both_sides_are_refused_or_not_evaluable(rows: dict[str, np.ndarray]) -> None:
    member, nonmember = halves(rows)
    with pytest.raises(InputError, match=r"^audit: nonmember: must be other samples than member, got the same logits"):
        audit(member=member, nonmember=member, **QUICK)
    turned = tuple(array[::-1] for array in member)
    result = audit(member=member, nonmember=turned, **QUICK)
    assert BY_OUTCOME[result.verdict.outcome] == 4
    assert "200 of 200 members (100.0%) have their outputs and label on the other side too" in result.verdict.sentence
    half = tuple(np.concatenate([a[:50], b[50:]]) for a, b in zip(member, nonmember, strict=True))
    assert BY_OUTCOME[audit(member=member, nonmember=half, **QUICK).verdict.outcome] == 4
    result = audit(member=member, nonmember=half, max_duplicates=0.5, **QUICK)
    assert result.summary.samples.n_twins == 100
    assert any("have outputs and a label that are on both sides" in line for line in result.verdict.cautions)


def test_rows_that_are_there_twice_are_no_leak() -> None:
    rng = np.random.default_rng(3)
    z, y, m = rng.normal(size=(400, 5)), rng.integers(0, 5, 400), np.repeat([1, 0], 200)
    z[np.arange(400), y] += 3
    result = audit(
        np.tile(z, (2, 1)), np.tile(y, 2), np.tile(m, 2), attacks={"knn": {"n_neighbors": [1]}}, n_jobs=1
    )
    assert result.verdict.outcome != "leak"
    assert result.summary.samples.n_groups == 400


def test_numpys_own_true_is_true(rows: dict[str, np.ndarray]) -> None:
    found = audit(rows["logits"], rows["labels"], rows["member"], weak_model=np.True_, **QUICK)
    assert found.verdict == audit(
        rows["logits"], rows["labels"], rows["member"], weak_model=True, **QUICK
    ).verdict
