"""Which samples of an audit belong together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.grouping import group_codes
from mia_batch.rundir.features import Features


def groups_of(features: Features) -> NDArray[np.int64] | None:
    """Numbers of the samples' groups, (n_samples,); None where nothing is known of any."""
    if features.content is None and features.group is None:
        return None
    return group_codes(features.content, features.group, len(features.member))
