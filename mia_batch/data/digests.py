"""SHA-256 of every file that a run reads."""

from __future__ import annotations

from pathlib import Path

from mia_batch.data.records import FORMATS, RecordSource
from mia_batch.files import Between, sha256
from mia_batch.settings.outputs import NoModel
from mia_batch.settings.schema import Config, DataConfig, factory_file


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
    """SHA-256 of the checkpoint, the data files, index files, other named files and functions' files, by field."""
    files: dict[str, Path | None] = {} if isinstance(config.model, NoModel) else {
        "model.checkpoint": config.model.checkpoint, **config.model.files(),
    }
    files |= {
        "data.source": factory_file(config.data.source), "data.preprocess": factory_file(config.data.preprocess),
        **config.data.named_files(),
    }
    found = {field: sha256(file, between) for field, file in files.items() if file}
    return found | {f"data:{name}": digest for name, digest in data_digests(config.data, between).items()}
