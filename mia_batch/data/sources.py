"""What a source of samples is, and the one that a configuration names."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from mia_batch.data.forms import Form
from mia_batch.data.records import FORMATS, RecordSource
from mia_batch.data.user_source import InputNames, ObjectSource, OpenDataset
from mia_batch.errors import InputError
from mia_batch.inputs import Inputs
from mia_batch.settings.schema import FROM_FILES, DataConfig
from mia_batch.settings.user_code import call


class Source(Protocol):
    """Samples of named splits, read by index."""

    def size(self, split: str) -> int:
        """Number of samples in `split`."""

    def labels(self, split: str, index: np.ndarray) -> np.ndarray:
        """Labels of the samples at `index`, int32 (n,); no image is read for those that are known without."""

    def read(self, split: str, index: np.ndarray, form: Form | None = None) -> tuple[Inputs, np.ndarray]:
        """The samples at `index`, at least one, all of `form`, and their labels, int32 (n,).

        Without a form, all are of the first one's. Images are uint8, or float32 from 0 to 255.
        """


def open_source(data: DataConfig, open_dataset: OpenDataset) -> Source:
    """The samples that `data` names. Files are opened when a split is first used.

    Args:
        data: the configuration.
        open_dataset: reads what the user's function returns if it is a MindSpore dataset.

    Raises:
        InputError: the folder or the factory cannot be used, or the source is none of samples.
    """
    if data.source == FROM_FILES:
        raise InputError(f"data.source: must be samples for a network, got {FROM_FILES}, which are imported instead")
    if data.source in FORMATS:
        if data.path is None:
            raise InputError(f"data.path: is required for source {data.source}")
        return RecordSource(data.path, FORMATS[data.source], data.label)
    optional = {} if data.path is None else {"path": data.path}

    def build(split: str) -> Any:
        return call(data.source, "data.source", {"split": split, **optional, **data.kwargs})

    return ObjectSource(build, data.source, open_dataset, InputNames.of(data), image=data.is_image)
