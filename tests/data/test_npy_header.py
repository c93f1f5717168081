"""Headers of .npy files: what they say, and that damaged ones are no fault of this program."""

from __future__ import annotations

import io

import numpy as np
import pytest

from mia_batch.data.npy_header import read_header


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_header_says_type_shape_and_order(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros((3, 2), ">f4", order="F"), version)
    size = len(file.getvalue()) - 24
    file.seek(0)
    found = read_header(file)
    assert (found.dtype, found.shape, found.fortran, found.size) == (np.dtype(">f4"), (3, 2), True, size)


@pytest.mark.parametrize("body", [b"-" * 9000 + b"1", b"{'descr': " + b"~" * 9000 + b"1}"])
def test_a_header_that_is_too_deep_is_no_want_of_memory(body: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
    with pytest.raises(ValueError, match="header"):
        read_header(io.BytesIO(content))


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"version \(3, 0\)"):
        read_header(io.BytesIO(b"\x93NUMPY\x03\x00"))
