"""References without a network: how a model is asked, what the state of a run says, which jobs are queued."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import pytest
from rundirs import a_manifest, make_run, write_rows

from mia_batch.errors import InputError
from mia_batch.inputs import INPUT_DTYPE
from mia_batch.mpi.world import World
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.crashes import begin_launch, note_crash
from mia_batch.rundir.features import features_samples
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_store import ReferenceStore, make_store, reference_paths, row_dtype
from mia_batch.rundir.state import begun_references, left_to_do, read_state
from mia_batch.scheduler.sbatch_commands import Request, plan_chain
from mia_batch.scheduler.site import Site
from mia_batch.settings.schema import ReferencesConfig
from mia_batch.stages.gather import Extraction
from mia_batch.stages.reference_columns import refuse_same_answers, refuse_turned_round
from mia_batch.stages.references import Asked

N, C = 20, 4


def settings(**changes: Any) -> ReferencesConfig:
    raw = {"checkpoints": (Path("a"),), "inclusion": Path("i"), "store": Path("s"), **changes}
    return ReferencesConfig.model_construct(**(ReferencesConfig(checkpoints=["a"], inclusion="i").model_dump() | raw))


class Adds:
    """A model of one input, whose logits are the input and so many more."""

    def __init__(self, largest: float = 0.0) -> None:
        self.largest = largest

    def logits(self, inputs: tuple[np.ndarray, ...], rows: np.ndarray | None = None) -> np.ndarray:
        (images,) = inputs
        return (images[:, :1] + np.arange(C) + self.largest).astype(np.float32)


def asked(largest: float = 0.0, **changes: Any) -> Asked:
    return Asked(cast(Any, Adds(largest)), settings(**changes))


def test_each_query_is_asked_by_itself() -> None:
    one, two = np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)
    assert asked().logits((one,)).shape == (3, 1, C)
    found = asked(queries=object(), logits="float16").logits((one, two))
    assert found.shape == (3, 2, C)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found[:, 1], found[:, 0] + 1)


def test_a_logit_that_float16_does_not_hold_is_refused() -> None:
    ones = np.ones((3, 2), np.float32)
    with pytest.raises(InputError, match=r"references.logits: must hold every logit, got float16 and 70004"):
        asked(7e4, logits="float16").logits((ones,))
    assert np.isfinite(asked(7e4).logits((ones,))).all()


@pytest.mark.parametrize("n_queries", [1, 3])
def test_a_reference_is_filled_as_features_are(tmp_path: Path, n_queries: int) -> None:
    run, _ = a_run(tmp_path)
    samples = features_samples(run.features)
    assert samples is not None
    sent = row_dtype(C, n_queries=n_queries, logits="float16")
    paths = ReferencePaths(tmp_path, "a" * 64)
    store: list[ReferenceStore] = []

    def opened(_n_classes: int) -> ReferenceStore:
        if not store:
            store.append(ReferenceStore.create(paths, samples, sent, {}))
        return store[0]

    def batches(rows: np.ndarray) -> Any:
        for part in np.array_split(rows, 4):
            views = tuple(part[:, None].astype(np.float32) + 100 * query for query in range(n_queries))
            yield part, views, np.zeros(len(part), np.int32), np.zeros(len(part), INPUT_DTYPE)

    forward = asked(queries=object() if n_queries > 1 else None, logits="float16")
    extraction = Extraction(
        World(), forward, batches, str, opened, C, lambda width: row_dtype(width, n_queries=n_queries, logits="float16")
    )
    outcome = extraction.run(np.zeros(N, bool), StopRequest())
    assert (outcome.done, outcome.total) == (N, N)
    store[0].finish(paths)
    with h5py.File(paths.outputs) as file:
        assert file["logits"].shape == (N, n_queries, C)
        wanted = np.arange(N)[:, None, None] + 100 * np.arange(n_queries)[:, None] + np.arange(C)
        np.testing.assert_array_equal(file["logits"][:], wanted)
        assert set(file) == {"sample_index", "label", "split", "content", "logits", "check", "done"}


def a_run(folder: Path) -> tuple[RunPaths, Manifest]:
    """A run whose rows are extracted, with two references."""
    plain = a_manifest()
    section = {
        "checkpoints": ["/a", "/b"], "inclusion": "/i", "store": str(folder / "s"), "logits": "float32", "group": None,
        "queries": None,
    }  # fmt: skip
    digests = {f"references.checkpoints[{i}]": str(i) * 64 for i in range(2)} | {"references.inclusion": "c" * 64}
    manifest = plain.model_copy(
        update={"config": plain.config | {"references": section}, "digests": plain.digests | digests}
    )
    run = make_run(RunPaths(folder / "run"), manifest)
    write_rows(run, manifest)
    return run, manifest


def said(run: RunPaths, manifest: Manifest) -> tuple[str, str]:
    (found,) = [each for each in read_state(run, manifest) if each.stage == "references"]
    return found.state, found.detail


def test_the_state_of_a_run_says_how_far_its_references_are(tmp_path: Path) -> None:
    run, manifest = a_run(tmp_path)
    assert said(run, manifest) == ("missing", "0 of 2")
    assert left_to_do(read_state(run, manifest)).stages == ("references", "attack", "reduce")
    samples = features_samples(run.features)
    assert samples is not None
    make_store(tmp_path / "s", None)
    first, second = reference_paths(manifest, samples).values()
    sent = row_dtype(C, n_queries=1, logits="float32")
    block = np.zeros(N, sent)
    block["row"] = np.arange(N)
    with ReferenceStore.create(first, samples, sent, {}) as store:
        store.write(block[:5])
    assert said(run, manifest) == ("partial", "0 of 2")
    begin_launch(first, np.zeros(N, bool))
    assert begun_references(run)[0].partial == first.partial
    note_crash(first, "exit code 139")
    for paths in (first, second):
        store = ReferenceStore(paths.partial) if paths is first else ReferenceStore.create(paths, samples, sent, {})
        store.write(block)
        store.finish(paths)
    assert said(run, manifest) == ("done", "2 of 2")
    assert not first.launch.exists()
    assert begun_references(run) == []
    assert left_to_do(read_state(run, manifest)).stages == ("attack", "reduce")


def test_references_are_queued_between_extract_and_attack_on_the_same_ranks(tmp_path: Path) -> None:
    site = Site.model_validate({"launcher": "srun", "extract": {"nodes": 2, "tasks_per_node": 8, "gres": "npu:8"}})
    steps = plan_chain(Request(tmp_path / "c.yaml", tmp_path, site, (), ("extract", "references", "attack", "reduce")))
    assert [step.after for step in steps] == [
        (), (("afterok", "extract"),), (("afterok", "references"),), (("afterok", "attack"),),
    ]
    extract, references = (step.options for step in steps[:2])
    same = [word.replace("extract", "references") for word in extract]
    assert list(references) == same
    assert steps[1].script[-2:] == ("srun", sys.executable)


def learned(rng: np.random.Generator, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Inclusion, (n, k), and phi of references that have learned it, (n, 1, k)."""
    included = rng.integers(0, 2, (2000, k)).astype(np.int8)
    return included, rng.normal(size=(2000, 1, k)) + included[:, np.newaxis, :]


def test_inclusion_that_is_turned_round_or_of_another_reference_is_refused(tmp_path: Path) -> None:
    """As a whole, and of one or two references alone: the others' answers bear theirs out."""
    included, phi = learned(np.random.default_rng(0))
    where, names = f"{tmp_path / 'in.npy'}: references.inclusion", ["a", "b", "c"]
    for sound in (included, np.random.default_rng(1).permutation(included), np.zeros_like(included)):
        refuse_turned_round(where, phi, sound, names)
    rule = r"in\.npy: references\.inclusion: must be 1 where a reference was trained on a sample, got phi of"
    one = included.copy()
    one[:, 1] = 1 - one[:, 1]
    for wrong, name in ((1 - included, "a"), (one, "b")):
        with pytest.raises(InputError, match=f"{rule} {name} tells its row of inclusion with AUC 0.2"):
            refuse_turned_round(where, phi, wrong, names)
    pair = np.column_stack([included[:, 0], 1 - included[:, 0]]).astype(np.int8)
    answers = np.random.default_rng(1).normal(size=(2000, 1, 2)) + pair[:, np.newaxis, :]
    with pytest.raises(InputError, match=f"{rule} a tells"):  # although it tells the other's row
        refuse_turned_round(where, answers, 1 - pair, names)
    with pytest.raises(InputError, match=r"in their order, got phi of b tells its row .* and that of c with 0\.7"):
        refuse_turned_round(where, phi, included[:, [0, 2, 1]], names)


def test_a_reference_that_answers_as_the_target_does_is_refused() -> None:
    """Weights of the target in a file of other bytes. Networks that say the same of everything are another matter."""
    _, phi = learned(np.random.default_rng(0))
    names = ["a", "b", "c"]
    refuse_same_answers(names, np.zeros((2000, 1)), np.zeros((2000, 1, 3)))
    refuse_same_answers(names, phi[:, :, 0] + 1e-9, phi)
    with pytest.raises(InputError, match=r"b: must be another model than the target, got 100\.0% equal answers"):
        refuse_same_answers(names, phi[:, :, 1], phi)
