"""Every file that is read, except HDF5: a good one, and what reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from outputs import a_raw_config, made_up, write_csv, write_npz, write_npz_by_columns, write_parquet
from rundirs import a_manifest, finish, make_run
from running import REPO
from samples import write_records
from trajectories import write_audit

from mia_batch import json_text
from mia_batch.attacks.reference_plan import plan_references
from mia_batch.commands.history import read_history
from mia_batch.data.groups import read_group_file
from mia_batch.data.inclusion import read_inclusion
from mia_batch.data.index_files import read_indices
from mia_batch.data.outputs import Outputs
from mia_batch.data.prepared import Prepared
from mia_batch.data.records import FORMATS, RecordSource
from mia_batch.data.selection import Selection
from mia_batch.files import sha256
from mia_batch.inputs import INPUT_DTYPE, Inputs
from mia_batch.network.checkpoint_bytes import stated_entries
from mia_batch.network.checkpoint_npz import read_npz as read_weights
from mia_batch.network.checkpoint_origin import origin_of
from mia_batch.network.rename import read_rename
from mia_batch.report.summary import read_summary
from mia_batch.rundir import jobs
from mia_batch.rundir.crashes import begin_launch, note_crash, rows_before_crash
from mia_batch.rundir.journal import Journal, tasks_done
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths, runs_in
from mia_batch.rundir.shadows import ShadowPaths, ShadowPlan, read_record, recorded_plan, write_plan
from mia_batch.scheduler.queue import statuses
from mia_batch.scheduler.site import load_site
from mia_batch.settings.loading import load_config, make_config
from mia_batch.stages.train import Files, already_trained
from mia_batch.stages.trajectory import read_trajectory

DAMAGED_RUN = "run2"
N = 40


@dataclass(frozen=True)
class Role:
    """A file that is read.

    Attributes:
        name: of it, and of who reads it.
        file: which is damaged, below the folder.
        make: puts good files into an empty folder.
        read: what they say, as something whose repr tells it from anything else.
        is_ours: a run writes it for itself: no change of it may go unseen. Of users' files other content is other
            content.
    """

    name: str
    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    is_ours: bool = False


def plain(value: Any) -> Any:
    """Arrays with all of their values, in a repr."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes().hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


# -- what users write --


def write_config(folder: Path) -> None:
    text = (REPO / "configs" / "vgg16_cifar100.yaml").read_text().replace("${MIA_CHECKPOINT}", "net.ckpt")
    (folder / "config.yaml").write_text(text.replace("${CIFAR100_DIR}", "data"))


def read_config(folder: Path) -> Any:
    return load_config(folder / "config.yaml", need=()).resolved()


def write_site(folder: Path) -> None:
    (folder / "site.yaml").write_text((REPO / "configs" / "sites" / "gpu.yaml").read_text())


def write_rename(folder: Path) -> None:
    rules: dict[str, Any] = {"backbone.*.w": "layers.*.weight", "head": ["a.bias"], "old": None}
    rules["head"] = "a.bias"
    (folder / "rename.yaml").write_text(yaml.safe_dump(rules))
    (folder / "rename.json").write_text(json.dumps(rules))


def write_index(folder: Path) -> None:
    index = np.random.default_rng(1).permutation(1000)[:N]
    np.save(folder / "index.npy", index)
    (folder / "index.txt").write_text("# rows\n" + "".join(f"{number}\n" for number in index))


def write_groups(folder: Path) -> None:
    np.save(folder / "groups.npy", np.arange(N) // 3)
    np.save(folder / "names.npy", np.array([f"p{i // 3}" for i in range(N)]))
    (folder / "groups.txt").write_text("".join(f"p{i // 3}\n" for i in range(N)))


def write_inclusion(folder: Path) -> None:
    included = np.random.default_rng(1).integers(0, 2, (4, N)).astype(bool)
    np.save(folder / "inclusion.npy", included)
    named = {"included": included, "split": np.array(["train"] * N), "sample_index": np.arange(N)}
    np.savez(folder / "inclusion.npz", **named)
    np.savez_compressed(folder / "packed.npz", **named)


def inclusion(folder: Path, name: str) -> Any:
    return read_inclusion(folder / name, 4, np.array(["train"] * N), np.arange(N))


def write_outputs(folder: Path) -> None:
    arrays = made_up(N) | {"sample_id": np.array([f"s{i}" for i in range(N)])}
    write_csv(folder / "outputs.csv", arrays)
    write_npz(folder / "outputs", arrays)
    write_npz_by_columns(folder / "columns", arrays)
    write_parquet(folder / "outputs.parquet", arrays)
    for name in ("logits", "label", "member"):
        np.save(folder / f"{name}.npy", arrays[name])


def outputs(files: Any) -> Any:
    opened = Outputs(make_config(a_raw_config(files), Path("c.yaml")).data)  # type: ignore[arg-type]
    samples = opened.read_samples()
    return vars(samples), np.concatenate(list(opened.read_outputs()))


def one_of(name: str) -> Callable[[Path], Any]:
    return lambda folder: outputs(str(folder / name))


def three(folder: Path) -> Any:
    return outputs({name: str(folder / f"{name}.npy") for name in ("logits", "label", "member")})


def write_samples(folder: Path) -> None:
    write_records(folder / "train.bin", 8, seed=1)


def samples(folder: Path) -> Any:
    source = RecordSource(folder, FORMATS["cifar100"], "fine")
    return source.labels("train", np.arange(source.size("train")))


def write_checkpoints(folder: Path) -> None:
    weights = {f"layers.{i}.weight": np.full((3, 2), i, np.float32) for i in range(4)}
    np.savez(folder / "net.npz", **weights)
    np.savez_compressed(folder / "packed.npz", **weights)
    stated, data = {}, b""
    for name, array in weights.items():
        offsets = [len(data), len(data) + array.nbytes]
        stated[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    header = json.dumps(stated).encode()
    (folder / "net.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (folder / "net.ckpt").write_bytes(b"".join(_ckpt_entry(name, array) for name, array in weights.items()))


def _ckpt_entry(name: str, array: np.ndarray) -> bytes:
    def field(key: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes([key, len(content)]) + content

    dims = b"".join(bytes([0x08, length]) for length in array.shape)
    tensor = dims + field(0x12, b"Float32") + field(0x1A, array.tobytes())
    return field(0x0A, field(0x0A, name.encode()) + field(0x12, tensor))


def checkpoint(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        stated = stated_entries(folder / name)
        origin = origin_of(folder / name)
        content = read_weights(folder / name, stated.entries) if name.endswith(".npz") else {}
        return stated, origin.epoch_num, origin.step_num, content

    return read


# -- what a run writes --


def write_run(folder: Path) -> None:
    paths, manifest = RunPaths(folder), a_manifest()
    finish(make_run(paths, manifest), manifest)
    summary = read_summary(paths.summary_json)
    paths.summary_json.write_text(json_text.written(summary.model_dump(mode="json", by_alias=True)))
    jobs.record(paths, {"extract": "12", "attack lr": "13", "reduce": "14"})
    begin_launch(paths, np.arange(N) % 2 == 0)
    note_crash(paths, "rank 1 on node n1 died of SIGSEGV")
    with_journal(paths, lambda journal: [journal.put(f"lr/{i}", {"score": 0.5 + i / 100}) for i in range(5)])


def with_journal(paths: RunPaths, work: Callable[[Journal], Any]) -> Any:
    journal = Journal(paths.journal("lr"), ("mark",))
    try:
        return work(journal)
    finally:
        journal.close()


def journaled(folder: Path) -> Any:
    """Its results: those that cannot be trusted are computed again, which changes nothing."""
    paths, good = RunPaths(folder), {f"lr/{i}": {"score": 0.5 + i / 100} for i in range(5)}
    if paths.journal("lr").is_file():
        tasks_done(paths.journal("lr"), ("mark",))
    found = with_journal(paths, lambda journal: {key: journal.get(key) for key in good})
    return {key: value if value is not None else good[key] for key, value in found.items()}


def crashed(folder: Path) -> Any:
    """Rows that are trusted beside those that are there: of damaged bytes none, as of a crash."""
    found = rows_before_crash(RunPaths(folder), N)
    return "trusts what it must not" if found is None or (found & (np.arange(N) % 2 == 1)).any() else "careful"


def write_shadows(folder: Path) -> None:
    models = plan_references(np.arange(N), 4, 1)
    plan = ShadowPlan(models, np.array(["train"] * N), np.arange(N))
    write_plan(ShadowPaths(folder), plan, {"seed": 1, "identity": {"data.path": "/d"}})


def shadow_plan(folder: Path) -> Any:
    record = read_record(ShadowPaths(folder))
    return record and (record, recorded_plan(ShadowPaths(folder), record).digest())


def write_trained(folder: Path) -> None:
    (folder / "net.ckpt").write_bytes(b"weights")
    record = {"sha256": sha256(folder / "net.ckpt"), "identity": {"epochs": 3}, "accuracy": 0.5}
    Files(folder / "net.ckpt").provenance.write_text(json_text.written(record))


def trained(folder: Path) -> Any:
    return already_trained(Files(folder / "net.ckpt"), {"epochs": 3})


def write_prepared(folder: Path) -> None:
    images = np.arange(N * 12, dtype=np.uint8).reshape(N, 2, 2, 3)
    prepared, inputs = Prepared(folder), Inputs("image", ("image",), (images,))
    with prepared.appending(replaced(inputs), "identity") as (append, _):
        append(inputs, np.zeros(N, INPUT_DTYPE))
    index = np.arange(N)
    columns = {"sample_index": index, "split": np.array(["train"] * N), "label": index.astype(np.int32)}
    selection = Selection(**columns, member=(index % 2).astype(np.int8), group=np.full(N, -1))  # type: ignore[arg-type]
    prepared.finish(selection, "identity", replaced(inputs))


def replaced(inputs: Inputs) -> Inputs:
    """The first sample."""
    return Inputs(inputs.kind, inputs.names, tuple(column[:1] for column in inputs.columns))


def prepared(folder: Path) -> Any:
    opened = Prepared(folder).open("identity")
    inputs, kept = opened.read(np.arange(N))
    return vars(opened.selection), list(inputs.columns), kept


# -- many runs, one of them damaged --


def write_runs(folder: Path) -> None:
    member = np.arange(20) % 2
    for step in (1, 2, 3):
        paths = write_audit(folder, step, False, member)
        summary = read_summary(paths.summary_json)
        paths.summary_json.write_text(json_text.written(summary.model_dump(mode="json", by_alias=True)))


class HiddenError(Exception):
    """The other runs are not shown as they were."""


def others(shown: dict[str, Any]) -> Any:
    """What is said of the damaged run, if the others are still there."""
    if sorted(name for name in shown if name != DAMAGED_RUN) != ["run1", "run3"]:
        raise HiddenError(sorted(shown))
    return shown


def statuses_of(folder: Path) -> Any:
    runs = runs_in(folder)
    found = others(dict(zip((each.root.name for each in runs), statuses(runs), strict=True)))
    return said_of_damaged(found, lambda stages: all(each.state == "done" for each in stages[-1:]))


def history_of(folder: Path) -> Any:
    entries = others({entry.run: entry for entry in read_history(folder).entries})
    return said_of_damaged(entries, lambda entry: entry.state == "done")


def trajectory_of(folder: Path) -> Any:
    found = read_trajectory(folder)
    steps = {step.run: step for step in found.steps}
    if DAMAGED_RUN in found.left_out or DAMAGED_RUN not in steps:
        others(steps)
        return REFUSED
    return others(steps)


REFUSED = "one line says that this run cannot be read"


def said_of_damaged(found: dict[str, Any], is_done: Callable[[Any], bool]) -> Any:
    """What is said, or that it is said that nothing can be."""
    return found if DAMAGED_RUN in found and is_done(found[DAMAGED_RUN]) else REFUSED


ROLES = (
    Role("config", "config.yaml", write_config, read_config),
    Role("site", "site.yaml", write_site, lambda folder: load_site(folder / "site.yaml")),
    *(
        Role(name, name, write_rename, lambda folder, name=name: read_rename(folder / name))
        for name in ("rename.yaml", "rename.json")
    ),
    *(
        Role(name, name, write_index, lambda folder, name=name: read_indices(folder / name))
        for name in ("index.npy", "index.txt")
    ),
    *(
        Role(name, name, write_groups, lambda folder, name=name: read_group_file(folder / name, N, "train"))
        for name in ("groups.npy", "names.npy", "groups.txt")
    ),
    *(
        Role(f"inclusion {name}", name, write_inclusion, lambda folder, name=name: inclusion(folder, name))
        for name in ("inclusion.npy", "inclusion.npz", "packed.npz")
    ),
    *(
        Role(name, name, write_outputs, one_of(name))
        for name in ("outputs.csv", "outputs.npz", "columns.npz", "outputs.parquet")
    ),
    *(Role(name, name, write_outputs, three) for name in ("logits.npy", "label.npy", "member.npy")),
    Role("records", "train.bin", write_samples, samples),
    *(
        Role(f"checkpoint {name}", name, write_checkpoints, checkpoint(name))
        for name in ("net.ckpt", "net.safetensors", "net.npz", "packed.npz")
    ),
    Role("run.json", "run.json", write_run, lambda folder: read_manifest(RunPaths(folder)), is_ours=True),
    Role("summary.json", "summary.json", write_run, lambda folder: read_summary(folder / "summary.json"), is_ours=True),
    Role("jobs.json", "jobs.json", write_run, lambda folder: jobs.submissions(RunPaths(folder)), is_ours=True),
    Role("journal", "attacks/.lr.journal", write_run, journaled, is_ours=True),
    Role(".launch", ".launch", write_run, crashed, is_ours=True),
    Role("plan.json", "plan.json", write_shadows, shadow_plan, is_ours=True),
    Role("plan.npz", "plan.npz", write_shadows, shadow_plan, is_ours=True),
    Role("provenance", "net.ckpt.json", write_trained, trained, is_ours=True),
    *(
        Role(f"prepared {name}", name, write_prepared, prepared, is_ours=True)
        for name in ("meta.json", "selection.npz", "images", "inputs", "check")
    ),
    *(
        Role(f"{reader.__name__} {name}", f"{DAMAGED_RUN}/{name}", write_runs, reader, is_ours=True)
        for name in ("run.json", "summary.json") for reader in (statuses_of, history_of, trajectory_of)
    ),
)  # fmt: skip
