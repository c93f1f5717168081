"""Take a model's outputs from files, of whatever framework, instead of running it."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.equal_outputs import row_keys, same_samples
from mia_batch.data.outputs import ImportedSamples, Outputs, refuse_one_file
from mia_batch.data.selection import canaries
from mia_batch.data.slices import named_slices, slice_columns
from mia_batch.errors import InputError
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.stop import Stopped, StopRequest
from mia_batch.rundir.claim import claim, in_force, try_places
from mia_batch.rundir.features import OUTPUTS, SPLIT, slice_dataset
from mia_batch.rundir.identity import features_digest
from mia_batch.rundir.import_store import ImportStore
from mia_batch.rundir.manifest import Manifest, end_launch, launch
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import read_rows
from mia_batch.settings.loading import named_in
from mia_batch.settings.outputs import OutputsConfig
from mia_batch.settings.schema import FROM_FILES, Config
from mia_batch.stages.arguments import load_run
from mia_batch.stages.plan import check_splits, make_manifest

log = logging.getLogger(__name__)


def open_outputs(config: Config) -> Outputs:
    """The files of a configuration whose source is outputs.

    Raises:
        InputError: its source is another, or a file has not what an audit needs.
    """
    if not isinstance(config.data, OutputsConfig):
        raise InputError(f"data.source: must be {FROM_FILES} for an import, got {config.data.source}")
    return Outputs(config.data)


def import_into(config: Config, paths: RunPaths, stop: StopRequest) -> int:
    """The whole stage; returns the exit code. Where it fails nothing is left behind.

    Raises:
        InputError: the files do not hold what an audit needs, or the directory holds another run.
    """
    try:
        return _import(config, paths, stop)
    except Stopped:
        log.warning("stopped by signal %s; the same command begins again", stop.signal)
        return RESUME


def _import(config: Config, paths: RunPaths, stop: StopRequest) -> int:
    outputs, before, manifest = open_outputs(config), _marks(config), make_manifest(config, stop.check)
    wanted, rows = in_force(paths, manifest), read_rows(paths)
    if rows and rows.complete and not rows.differences(wanted):
        claim(paths, manifest)
        log.info("import: nothing to do, all %d rows are done", rows.total)
        return OK
    try_places(paths, manifest)
    refuse_one_file(outputs.data, manifest.digests, content=True)
    log.info("import: %s", outputs.describe())
    started, samples = time.monotonic(), outputs.read_samples(stop.check)
    check_samples(config, samples)
    begun = launch("import", rows=len(samples.member))
    columns = _columns(samples)
    with _run_directory(paths), ImportStore.create(
        paths, len(samples.member), outputs.n_classes, columns=[*columns, "content", "done"]
    ) as store:  # fmt: skip
        keys = _copy(outputs, samples, store, stop)
        if _marks(config) != before:
            raise InputError("data.files: must not change while they are read, got other times or sizes")
        attrs = _attrs(outputs, samples, wanted) | {"launch": begun}
        same = same_samples(keys, columns["member"], store.logits() if outputs.n_classes else None)
        if same is not None:
            columns["content"], attrs["content"] = same, OUTPUTS
        store.complete(columns, attrs)
        claim(paths, manifest, begun)  # after all that a full disk may stop
        store.put_in_place()
    end_launch(paths, begun, {"seconds": round(time.monotonic() - started, 3)})
    return OK


def check_samples(config: Config, samples: ImportedSamples) -> None:
    """Refuse what a later stage would.

    Raises:
        InputError: too few samples for the split, the folds or a grid, or a canary or slice that is none of them.
    """
    check_splits(config.attack, samples.member, samples.group)
    n = len(samples.member)
    split, index = np.broadcast_to(SPLIT, n), np.arange(n)
    canaries(config.data.canaries, split, index)
    named_slices(config.report.slice_files(), split, index)
    slice_columns(config.report.slices_by, split, index, {SPLIT: n})


def _copy(
    outputs: Outputs, samples: ImportedSamples, store: ImportStore, stop: StopRequest
) -> NDArray[np.uint64]:
    """Write logits and losses where members are first; returns what `row_keys` gives of each, in this order."""
    rows, label, first = samples.rows, samples.label, 0
    keys = np.zeros(len(rows), np.uint64)
    with Progress(len(rows), what="import") as progress:
        for block in outputs.read_outputs(store.path.parent):
            part = slice(first, first + len(block))
            if part.stop > len(rows):
                break
            keys[rows[part]] = row_keys(block, None if label is None else label[part])
            if outputs.n_classes is None or label is None:
                store.write(rows[part], loss=block)
            else:
                store.write(rows[part], logits=block, loss=signals.loss(block, label[part]))
            first = part.stop
            progress.add(len(block))
            stop.check()
    if first != len(rows):
        raise InputError(f"data.files: must not change while they are read, got other than {len(rows)} samples")
    return keys


def _columns(samples: ImportedSamples) -> dict[str, NDArray[Any]]:
    """What is known beside the outputs, where members are first."""
    rows = samples.rows

    def placed(column: NDArray[Any]) -> NDArray[Any]:
        found = np.empty_like(column)
        found[rows] = column
        return found

    columns: dict[str, NDArray[Any]] = {"sample_index": np.arange(len(rows), dtype=np.int64), "member": samples.member}
    names = ("label", "group", "group_name", "sample_id")
    columns |= {name: column for name in names if (column := getattr(samples, name)) is not None}
    columns |= {slice_dataset(name): numbers for name, (numbers, _) in samples.slices.items()}
    return {name: placed(column) for name, column in columns.items()}


def _attrs(outputs: Outputs, samples: ImportedSamples, manifest: Manifest) -> dict[str, Any]:
    """What the file says of itself."""
    attrs: dict[str, Any] = {key: getattr(manifest, key) for key in ("config", "digests", "versions")}
    attrs |= {"identity": features_digest(manifest), "outputs": outputs.kind}
    return attrs | {"slices": {name: list(values) for name, (_, values) in samples.slices.items()}}


@contextmanager
def _run_directory(paths: RunPaths) -> Iterator[None]:
    """Make the run directory; if the block fails, the folders that were not there go again."""
    made = [folder for folder in (paths.attacks, paths.root, *paths.root.parents) if not folder.exists()]
    paths.create()
    try:
        yield
    except BaseException:
        if paths.root in made:
            paths.lock.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):  # somebody else has put a file there
                folder.rmdir()
        raise


def _marks(config: Config) -> dict[str, tuple[int, int]]:
    """Time of the last change and size of each file, by field."""
    assert isinstance(config.data, OutputsConfig)
    found = {}
    for field, file in config.data.output_files().items():
        try:
            status = file.stat()
        except OSError as error:
            raise InputError(f"{field}: must be a file that can be read, got {file}: {error.strerror}") from error
        found[field] = status.st_mtime_ns, status.st_size
    return found


def run_import_stage(args: argparse.Namespace, stop: StopRequest) -> int:
    """The stage of the command line."""
    config, paths = load_run(args)
    with named_in(config.path):
        return import_into(config, paths, stop)
