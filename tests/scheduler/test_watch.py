"""Which checkpoints are complete, and the cause that the log names for each of the others."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusing import answer
from rundirs import one_entry

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_bytes import ENCRYPTED
from mia_batch.scheduler import watch
from mia_batch.scheduler.watch import complete_checkpoints

Log = pytest.LogCaptureFixture
YEAR = 3e7  # seconds


def put(path: Path, content: bytes | None = None, *, age: float = 300) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(one_entry(path.name.encode()) if content is None else content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def found(folder: Path, quiet_s: float = 120) -> list[str]:
    return [str(path.relative_to(folder)) for path, _ in complete_checkpoints(folder, quiet_s=quiet_s)]


def causes(log: Log) -> list[str]:
    return [text.removeprefix("not audited: ") for text in log.messages if text.startswith("not audited: ")]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder below which any user may look."""
    folder = Path(tempfile.mkdtemp(prefix="watched-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(folder: Path) -> tuple[list[str], list[str]]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    watch.log.addHandler(handler)
    if os.geteuid() == 0:
        os.setuid(65534)
    return found(folder), said


def test_what_this_user_may_not_read_is_named(open_folder: Path) -> None:
    put(open_folder / "good.ckpt")
    put(open_folder / "mine.ckpt").chmod(0)
    put(open_folder / "closed" / "x.ckpt").parent.chmod(0)
    put(open_folder / "listed" / "y.ckpt").parent.chmod(0o444)  # its names can be read, and nothing else
    names, said = answer("", as_nobody, open_folder)
    assert names == ["good.ckpt"]
    rule, got = "must be readable to this user", "Permission denied"
    assert sorted(said) == sorted([
        f"not audited: what is below {open_folder}/closed: {rule}, got: {got}",
        f"not audited: {open_folder}/listed/y.ckpt: {rule}, got: {got}",
        f"not audited: {open_folder}/mine.ckpt: model.checkpoint: must be a file that can be read, got: {got}",
    ])
    open_folder.chmod(0o711)
    with pytest.raises(InputError, match="--watch: must be a directory that can be read"):
        answer("", as_nobody, open_folder)
    for name in ("closed", "listed"):
        (open_folder / name).chmod(0o755)


def test_what_is_no_file_is_named(tmp_path: Path, caplog: Log) -> None:
    wrong = {"gone.ckpt": "a broken link", "pipe.ckpt": "none"}
    (tmp_path / "gone.ckpt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    assert found(tmp_path) == []
    wanted = [f"{tmp_path}/{name}: must be a file, got {got}" for name, got in wrong.items()]
    assert sorted(causes(caplog)) == wanted


@pytest.mark.parametrize(
    ("head", "by"),
    [
        (ENCRYPTED[0], "with enc_key; load it with its dec_key"), (b"Salted__", "by openssl; decrypt it"),
        (b"age-encryption.org/v1\n", "by age; decrypt it"), (b"-----BEGIN PGP MESSAGE-----", "by GnuPG; decrypt it"),
    ],
)
def test_an_encrypted_file_is_named(tmp_path: Path, caplog: Log, head: bytes, by: str) -> None:
    for suffix in (".ckpt", ".safetensors"):
        put(tmp_path / f"net{suffix}", head + bytes(100))
    assert found(tmp_path) == []
    assert len(causes(caplog)) == 2
    assert all(f"must not be encrypted, got a file made {by}" in cause for cause in causes(caplog))


@pytest.mark.parametrize(
    ("names", "index", "how"),
    [
        (["net-00001-of-00003.safetensors", "net-00003-of-00003.safetensors"], "", "2 of 3 parts of one"),
        (["a.safetensors", "b.safetensors"], "model.safetensors.index.json", "2 parts of one by model.safetensors"),
        (["part0.safetensors", "part1.safetensors"], "param_name_map.json", "2 parts of one by param_name_map.json"),
        (["rank_0/net-1_9.ckpt", "rank_1/net-1_9.ckpt"], "", "what 2 ranks have saved of one"),
        (["net_rank0.ckpt", "net_rank1.ckpt"], "", "what 2 ranks have saved of one"),
    ],
)
def test_parts_of_one_checkpoint_are_refused_as_one(
    tmp_path: Path, caplog: Log, names: list[str], index: str, how: str
) -> None:
    for number, name in enumerate(names):
        put(tmp_path / name, one_entry(f"weight{number}".encode()))
    if index:
        places = {f"weight{number}": name for number, name in enumerate(names)}
        (tmp_path / index).write_text(json.dumps({"weight_map": places} if "index" in index else places))
    put(tmp_path / "other.ckpt")
    assert found(tmp_path) == ["other.ckpt"]
    (cause,) = causes(caplog)
    assert cause.startswith(f"{tmp_path / names[0]} and 1 more: must be one file with all weights, got {how}")


def test_whole_models_beside_an_index_or_of_ranks_are_taken(tmp_path: Path, caplog: Log) -> None:
    for rank in range(2):  # each has trained on its own data, with statistics of its own
        put(tmp_path / f"rank_{rank}" / "net.ckpt", one_entry(b"mean")[:-1] + bytes([rank]))
    put(tmp_path / "one-00001-of-00001.ckpt")
    put(tmp_path / "one.ckpt")
    for name, content in (
        ("a.index.json", '{"weight_map": {"w": "one.safetensors"}}'), ("b.index.json", "[" * 100_000),
        ("c.index.json", '{"weight_map": 3}'), ("param_name_map.json", "no json"),
    ):
        (tmp_path / name).write_text(content)
    assert sorted(found(tmp_path)) == ["one-00001-of-00001.ckpt", "one.ckpt", "rank_0/net.ckpt", "rank_1/net.ckpt"]
    assert causes(caplog) == []


def test_a_date_in_the_future_is_named_and_postpones_nothing(
    tmp_path: Path, caplog: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "old.ckpt")
    future = put(tmp_path / "future.ckpt", age=-YEAR)
    assert found(tmp_path) == ["old.ckpt"]  # just made, says the time of its last change of any kind
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 200)
    assert found(tmp_path) == ["old.ckpt", "future.ckpt"]
    assert re.search(rf"{future}: is dated in the future, 20\d\d-", caplog.text)


@pytest.mark.parametrize("written", [False, True])
def test_where_no_date_is_past_a_look_decides(
    tmp_path: Path, caplog: Log, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """The file server's clock was ahead by a year: nothing but the file's rest says that it is complete."""
    path = put(tmp_path / "future.ckpt", age=0)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - YEAR)
    if written:
        threading.Timer(0.2, lambda: path.write_bytes(one_entry(b"other"))).start()
    started = time.monotonic()
    assert found(tmp_path, quiet_s=1) == ([] if written else ["future.ckpt"])
    assert time.monotonic() - started >= 1
    assert f"{path}: watched for 1 s" in caplog.text
