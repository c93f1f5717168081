"""SHA-256 of every file that a run reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mia_batch.data.records import FORMATS, RecordSource
from mia_batch.errors import InputError
from mia_batch.files import Between, sha256
from mia_batch.rundir.reference_files import reference_digests, reference_weights
from mia_batch.settings.outputs import NoModel
from mia_batch.settings.schema import Config, DataConfig, factory_file

WEIGHTS = re.compile(r"references\.(checkpoints|shadows)\[\d+\]")


def data_digests(data: DataConfig, between: Between = None) -> dict[str, str]:
    """SHA-256 of the files that hold the samples: the record files of the splits in use, or a source's single file.

    Keys do not depend on where the folder is: "train.bin", "path". A user's folder of images is not read for this.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    if data.path is None or (data.source not in FORMATS and not data.path.is_file()):
        return {}
    if data.source not in FORMATS:
        return {"path": sha256(data.path, between)}
    source = RecordSource(data.path, FORMATS[data.source], data.label)
    files = [file for split in data.splits() for file in source.files(split)]
    return {file.relative_to(data.path).as_posix(): sha256(file, between) for file in files}


def digests(config: Config, between: Between = None) -> dict[str, str]:
    """SHA-256 of the checkpoint, the data files, index files, other named files and functions' files, by field.

    Of an audit of an earlier checkpoint it is a digest of what its rows depend on. References that are still to be
    trained have none.

    Raises:
        InputError: a file cannot be read, a reference is there twice or is the audited checkpoint itself, or an earlier
            audit lacks rows.
    """
    files: dict[str, Path | None] = {} if isinstance(config.model, NoModel) else {
        "model.checkpoint": config.model.checkpoint, **config.model.files(),
    }
    files |= {
        "data.source": factory_file(config.data.source), "data.preprocess": factory_file(config.data.preprocess),
        **config.data.named_files(), **config.report.files(),
    }
    found = {field: sha256(file, between) for field, file in files.items() if file}
    if config.references:
        found |= reference_digests(config.references, between)
        refuse_twins(found, reference_weights(config.references))
    if config.attack.trajectory:
        from mia_batch.rundir.earlier import earlier_digests  # h5py: only where there are earlier audits

        found |= earlier_digests(config.attack.trajectory)
    return found | {f"data:{name}": digest for name, digest in data_digests(config.data, between).items()}


def refuse_twins(digests: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """Refuse references whose weights are there twice: their content counts, not their names.

    Args:
        digests: of the audited checkpoint and of the references, by field; others do not matter.
        files: of the references, by field.

    Raises:
        InputError: with a line for each reference that is another one, or the audited checkpoint itself.
    """
    seen, problems = {digests["model.checkpoint"]: "model.checkpoint"}, []
    for field in filter(WEIGHTS.fullmatch, digests):
        if digests[field] in seen:
            rule = "must be other weights than the audited ones and than those of every other reference"
            problems.append(f"{field}: {rule}, got {files[field]}, whose content is that of {seen[digests[field]]}")
        seen.setdefault(digests[field], field)
    if problems:
        raise InputError(problems)
