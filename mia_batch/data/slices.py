"""Named subsets of the samples, by files of indices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.index_files import read_indices
from mia_batch.errors import InputError


def named_slices(
    files: Mapping[str, Mapping[str, Path]], split: NDArray[np.str_], sample_index: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Which samples `report.slices` names, (n_samples,) each, by name. An index that is no sample of the audit is not.

    Args:
        files: of indices, by name and split.
        split: of each sample, (n_samples,).
        sample_index: position in its split, (n_samples,).

    Raises:
        InputError: a bad index file, a split that no sample is of, or a file that names no sample.
    """
    found = {}
    for name, by_split in files.items():
        found[name] = np.zeros(len(split), dtype=bool)
        for of, file in by_split.items():
            field = f"report.slices.{name}.{of}"
            there = np.asarray(split == of)
            if not there.any():
                known = ", ".join(np.unique(split).tolist())
                raise InputError(f"{field}: must be a split that samples are of: {known}, got {of}")
            named = there & np.isin(sample_index, read_indices(file))
            if not named.any():
                raise InputError(f"{field}: must name a sample of split {of!r}, got none in {file}")
            found[name] |= named
    return found
