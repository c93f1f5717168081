"""Files whole or not at all, and what the file system objects to as one line."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest

from mia_batch.data.prepared import Prepared
from mia_batch.errors import InputError
from mia_batch.files import is_full, not_written, write_text
from mia_batch.inputs import Inputs
from mia_batch.rundir.hdf5 import as_input_error
from mia_batch.rundir.journal import Journal
from mia_batch.rundir.paths import RunPaths

SAMPLE = Inputs("image", ("image",), (np.zeros((1, 2, 2, 3), np.uint8),))
FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("code", FULL)
def test_no_room_is_one_line_wherever_it_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "said by the system")

    prepared = Prepared(tmp_path / "prepared")
    with prepared.appending(SAMPLE, "identity"):
        pass
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(InputError, match=r"x: the disk is full$"):
        write_text(tmp_path / "x", "text")
    assert list(tmp_path.iterdir()) == [prepared.folder]
    with pytest.raises(InputError, match=r"f\.h5: the disk is full$"), as_input_error(tmp_path / "f.h5"):
        fail()
    with pytest.raises(InputError, match=r"prepared: the disk is full$"), prepared.appending(SAMPLE, "identity"):
        fail()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(InputError, match=r"run: the disk is full$"):
        RunPaths(tmp_path / "run").create()


def test_a_journal_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path / "journal", ("mark",))
    journal.close()
    journal._file = Full()  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"journal: the disk is full$"):
        journal.put("lr/0", {})


def test_what_is_not_for_want_of_room_says_what_it_is() -> None:
    assert is_full(OSError("Can't write data (errno = 28, error message = 'No space left on device')"))
    error = PermissionError(errno.EACCES, "Permission denied")
    assert str(not_written(Path("x"), error)) == "x: must be writable, got: Permission denied"
    assert str(not_written(Path("x"), error, "--out: must be mine")) == "x: --out: must be mine, got: Permission denied"
