"""Which of many names is there twice, without a copy of them all as Python objects."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

EXACT_BYTES = 16  # so many make a key as they are; longer names make one by their hash


def first_repeated(names: NDArray[np.bytes_]) -> int | None:
    """The first position whose name an earlier one has too; None if there is none.

    Args:
        names: shape (n,), as numpy keeps bytes: padded with zeros.
    """
    width, n = names.dtype.itemsize, len(names)
    if width <= EXACT_BYTES:
        keys = names.astype(f"S{EXACT_BYTES}").view("<u8").reshape(n, 2)
    else:
        digests = b"".join(hashlib.blake2b(name, digest_size=EXACT_BYTES).digest() for name in names.tolist())
        keys = np.frombuffer(digests, "<u8").reshape(n, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: of equal names the earliest is first
    keys = keys[order]
    again = order[1:][(keys[1:] == keys[:-1]).all(axis=1)]
    return int(again.min()) if len(again) else None
