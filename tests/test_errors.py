"""A slip of the pen is answered with what was meant, anything else with nothing; what a library says is short."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from mia_batch.errors import SAID_LENGTH, did_you_mean, one_line


@pytest.mark.parametrize(
    ("value", "choices", "meant"),
    [
        ("gup", ["cpu", "gpu"], "gpu"), ("rl", ["lr", "rf"], "lr"),
        ("statsu", ["run", "status", "submit"], "status"), ("LR", ["lr", "rf"], "lr"), ("c", ["C", "dual"], "C"),
        ("batch-size", ["batch_size"], "batch_size"), ("dev", ["device", "batch_size"], "device"),
        ("n_neighbours", ["n_jobs", "n_neighbors"], "n_neighbors"), ("--rnaks", ["--ranks", "--out"], "--ranks"),
    ],
)  # fmt: skip
def test_what_is_close_is_named(value: str, choices: list[str], meant: str) -> None:
    assert did_you_mean(value, choices) == f"; did you mean {meant}?"


@pytest.mark.parametrize(
    ("value", "choices"),
    [
        ("TPU", ["GPU", "CPU"]), ("", ["a"]), ("seed", []), ("x", ["seed"]), (3, ["3"]), (None, ["none"]),
        (["seed"], ["seed"]), ("seed", ["seed", "sede"]), ("sea", ["search", "sealed"]), ("d", ["device"]),
    ],
)  # fmt: skip
def test_what_is_not_close_is_not(value: object, choices: list[str]) -> None:
    assert did_you_mean(value, choices) == ""


def test_what_an_archive_holds_is_not_quoted() -> None:
    """zipfile quotes as much of a damaged member as its header says that the name is long."""
    file = io.BytesIO()
    np.savez(file, included=np.arange(500) % 3 == 0)
    data = bytearray(file.getvalue())
    data[26:28] = (600).to_bytes(2, "little")  # the length of its name
    with zipfile.ZipFile(io.BytesIO(data)) as archive, pytest.raises(zipfile.BadZipFile) as raised:
        archive.read("included.npy")
    assert "x01" in str(raised.value)
    said = "BadZipFile: File name in directory 'included.npy' and header bytes differ."
    assert one_line(raised.value) == said


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("\n---\n must be a \nmore", "ValueError: must be a"), ("", "ValueError"),
        (f"expected {bytes(4)!r}", f"ValueError: expected {bytes(4)!r}"),
        (f"got {bytes(99)!r} of", "ValueError: got bytes of"), (f"got b'{'x' * 999}", "ValueError: got bytes"),
        ("x" * 999, f"ValueError: {'x' * SAID_LENGTH}..."),
    ],
)  # fmt: skip
def test_what_a_library_says_is_one_short_line(message: str, line: str) -> None:
    assert one_line(ValueError(message)) == line
