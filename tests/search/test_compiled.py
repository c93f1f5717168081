"""Machine code on disk: kept where it can be, compiled again where files are damaged or nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
from mia_batch.search.kernels.compiled import compiled

@compiled
def once_more(x):
    return x + 1

@compiled
def twice_more(x):
    return once_more(once_more(x))
"""
CALL = """
import sys
sys.path.insert(0, {folder!r})
{before}
from inner import once_more, twice_more
print(twice_more(1), once_more(2.5), sum(twice_more.stats.cache_hits.values()))
"""


def call(folder: Path, before: str = "", cache: str | None = None) -> tuple[str, str]:
    """What a new process prints: results, how often machine code was found; and its standard error."""
    code = CALL.format(folder=str(folder), before=before)
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache or str(folder / "cache"), "HOME": str(folder)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return found.stdout.strip(), found.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner.py").write_text(SOURCE)
    return tmp_path


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nb?") if path.is_file())


def test_the_next_process_finds_it(folder: Path) -> None:
    assert call(folder) == ("3 3.5 0", "")
    assert len(kept(folder)) == 5  # an index for each function; the code of one for two types
    assert call(folder) == ("3 3.5 1", "")


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "torn", "other"])
def test_damaged_files_are_made_anew(folder: Path, kind: str, damage: str) -> None:
    call(folder)
    for path in kept(folder):
        if path.suffix == f".{kind}":
            whole = path.read_bytes()
            path.write_bytes({"empty": b"", "torn": whole[: len(whole) // 2], "other": b"no pickle" * 99}[damage])
    assert call(folder) == ("3 3.5 0", "")
    assert call(folder) == ("3 3.5 1", "")


def test_without_room_it_compiles_for_itself_and_says_so_once(folder: Path) -> None:
    no_room = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    out, err = call(folder, no_room)
    assert out == "3 3.5 0"
    assert err.count("compiled code cannot be kept") == 1
    assert len(err.splitlines()) == 1
    assert kept(folder) == []


def test_a_file_in_the_place_of_the_cache_folder(folder: Path) -> None:
    """The next place is taken: beside the source."""
    assert call(folder, cache=str(folder / "inner.py")) == ("3 3.5 0", "")
    assert {path.parent.name for path in kept(folder)} == {"__pycache__"}


def test_no_place_at_all(folder: Path) -> None:
    (folder / "__pycache__").touch()
    (folder / ".cache").touch()
    nowhere = "import os; os.environ.pop('XDG_CACHE_HOME', None)"
    assert call(folder, nowhere, cache=str(folder / "inner.py")) == ("3 3.5 0", "")
    assert kept(folder) == []
