"""The HDF5 files that we read, and a command that reads each: as its user runs it, in this process."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hdf5_campaign import Target, as_text
from hdf5_faults import BY_HDF5, BYTES, SEALED_AGAIN
from hdf5_files import unseal
from outputs import a_raw_config, made_up, write_hdf5, write_npz

from mia_batch.cli import main
from mia_batch.process.exit_codes import OK, run_main, run_stoppable
from mia_batch.rundir.features import FeatureStore, block_dtype, read_features
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_store import ReferenceStore, StoredSamples, read_phi, row_dtype
from mia_batch.stages.attack import run_attack_stage
from mia_batch.stages.import_outputs import run_import_stage
from mia_batch.stages.reduce import reduce

N, C = 120, 3  # samples, classes
METHODS = ("threshold_loss", "threshold_entropy")
KEY = "a" * 64  # of a reference
RUN = "run"  # the run directory in a case's folder


def _config(folder: Path, file: Path) -> None:
    raw = a_raw_config(file.name, *METHODS)
    raw["data"]["files"] = str(file)
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))


def _arguments(folder: Path, **more: Any) -> argparse.Namespace:
    known = {"config": str(folder / "c.yaml"), "out": str(folder / RUN), "checkpoint": None, "changes": []}
    return argparse.Namespace(**known, verbose=False, quiet=False, junit=None, method=None, prepared=None, **more)


def _stage(folder: Path, stage: str) -> int:
    args = _arguments(folder)
    stages = {"import": run_import_stage, "attack": run_attack_stage}
    return run_stoppable(stages[stage], args) if stage in stages else run_main(lambda: reduce(args))


def _stages(*names: str) -> Callable[[Path], tuple[int, str]]:
    """Run stages until one refuses; the result is what the verdict says."""

    def run(folder: Path) -> tuple[int, str]:
        for name in names:
            code = _stage(folder, name)
            if code not in (0, 3, 4):
                return code, ""
        return code, _verdict(folder)

    return run


def _verdict(folder: Path) -> str:
    found = json.loads((folder / RUN / "summary.json").read_text())
    found.pop("files")
    for method in found["methods"].values():
        method.pop("seconds"), method.pop("provenance")
    return json.dumps({key: found[key] for key in ("verdict", "methods", "samples", "records")}, sort_keys=True)


def _outputs(folder: Path) -> Path:
    """The same in every folder of a campaign: a run knows its files by their content and place."""
    return write_npz(folder / "outputs", made_up(N, C))


def prepare_run(folder: Path, *stages: str) -> None:
    """A run of imported outputs."""
    _config(folder, _outputs(folder))
    for stage in stages:
        assert _stage(folder, stage) in (0, 3, 4)


def _features(folder: Path) -> None:
    prepare_run(folder, "import")


def _results(folder: Path) -> None:
    prepare_run(folder, "import", "attack")


def _old(prepare: Callable[[Path], None], file: str) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        prepare(folder)
        unseal(folder / file)

    return made


# -- files of rows ----------------------------------------------------------------------------------------------------


def _rows(rows: np.ndarray) -> np.ndarray:
    block = np.zeros(len(rows), block_dtype(C))
    block["row"], block["loss"] = rows, rows / 8
    block["content"] = rows[:, None] + np.arange(16)
    block["statistics"], block["logits"] = rows[:, None] / 3, rows[:, None] * 10 + np.arange(C)
    return block


def _partial(folder: Path) -> None:
    columns = {
        "sample_index": np.arange(N), "split": np.repeat(["train", "test"], N // 2), "label": np.arange(N) % C,
        "member": np.repeat([1, 0], N // 2), "group": np.full(N, -1),
    }  # fmt: skip
    with FeatureStore.create(folder / "features.h5", columns, C, {"config": {"a": [1, 2]}, "digests": {}}) as store:
        store.write(_rows(np.arange(0, N, 3)))


def _filled(folder: Path) -> tuple[int, str]:
    """Fill what is left, as extract does, and read the file."""
    path, found = folder / "features.h5", []

    def fill() -> int:
        with FeatureStore(path) as store:
            left = np.flatnonzero(~store.done())
            if len(left):
                store.write(_rows(left))
        features = read_features(path)
        found.extend([features.sample_index, features.split, features.label, features.member, features.logits,
                      features.loss, features.content, features.statistics])  # fmt: skip
        return OK

    code = run_main(fill)
    return code, as_text([np.asarray(each) for each in found])


def _samples() -> StoredSamples:
    order = np.random.default_rng(3).permutation(N)
    return StoredSamples(np.repeat(["train", "test"], N // 2)[order], np.arange(N)[order], (np.arange(N) % C)[order])


def _reference_rows(rows: np.ndarray) -> np.ndarray:
    block = np.zeros(len(rows), row_dtype(C, n_queries=2, logits="float16"))
    block["row"], block["content"] = rows, 0
    block["logits"] = (rows[:, None, None] + np.arange(2)[:, None] * np.arange(C)) / 16
    return block


def _reference(folder: Path, *, complete: bool) -> None:
    paths, sent = ReferencePaths(folder, KEY), row_dtype(C, n_queries=2, logits="float16")
    with ReferenceStore.create(paths, _samples(), sent, {"weights": "x"}) as store:
        store.write(_reference_rows(np.arange(N) if complete else np.arange(0, N, 2)))
        if complete:
            store.finish(paths)


def _phi(folder: Path) -> tuple[int, str]:
    paths, found = ReferencePaths(folder, KEY), []

    def read() -> int:
        if not paths.outputs.exists() and paths.partial.exists():
            with ReferenceStore(paths.partial) as store:
                left = np.flatnonzero(~store.done())
                if len(left):
                    store.write(_reference_rows(left))
                store.finish(paths)
        found.append(read_phi([paths], _samples(), np.zeros((N, 16), np.uint8)))
        return OK

    code = run_main(read)
    return code, as_text(found)


# -- users' files -----------------------------------------------------------------------------------------------------


def _users(folder: Path) -> None:
    more = {"group": np.arange(N) // 2, "sample_id": np.array([f"sample {i}" for i in range(N)])}
    _config(folder, write_hdf5(folder / "users", made_up(N, C) | more))


def _imported(folder: Path) -> tuple[int, str]:
    raw = yaml.safe_load((folder / "c.yaml").read_text())
    raw["data"]["files"] = str(folder / "users.h5")
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))
    code = _stage(folder, "import")
    if code:
        return code, ""
    found = read_features(RunPaths(folder / RUN).features)
    return code, as_text([np.asarray(each) for each in (found.label, found.member, found.logits, found.loss)])


def _status(folder: Path) -> tuple[int, str]:
    """A state that is damaged is no refusal: other stages are shown beside it."""
    return main(["status", str(folder / RUN)]), ""


def _verify(folder: Path) -> tuple[int, str]:
    """Damage is told on standard output, a line for each file."""
    code = main(["verify", str(folder / RUN)])
    print("mia-batch: verify says so")
    return code, ""


FEATURES, RESULT = f"{RUN}/features.h5", f"{RUN}/attacks/{METHODS[0]}.h5"
ALL = BYTES | BY_HDF5 | SEALED_AGAIN
TARGETS = (
    Target("features", FEATURES, _features, _stages("attack", "reduce"), ALL),
    Target("features: status", FEATURES, _features, _status, ALL),
    Target("features: verify", FEATURES, _features, _verify, ALL),
    Target("features, partial", "features.h5", _partial, _filled, ALL),
    Target("result", RESULT, _results, _stages("reduce"), ALL),
    Target("result: status", RESULT, _results, _status, ALL),
    Target("result: verify", RESULT, _results, _verify, ALL),
    Target("reference", f"{KEY}.h5", lambda folder: _reference(folder, complete=True), _phi, ALL),
    Target("reference, partial", f".{KEY}.h5", lambda folder: _reference(folder, complete=False), _phi, ALL),
    *(
        Target(name, file, prepare, run, BYTES | BY_HDF5, vouched=False)
        for name, file, prepare, run in (
            ("features of before", FEATURES, _old(_features, FEATURES), _stages("attack", "reduce")),
            ("partial of before", "features.h5", _old(_partial, "features.h5"), _filled),
            ("result of before", RESULT, _old(_results, RESULT), _stages("reduce")),
            ("user's file", "users.h5", _users, _imported),
        )
    ),
)
