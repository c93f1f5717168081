"""Files of ours are read only if they are ours and whole: every byte counts, whoever changed it."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_files import change, change_and_seal, unseal
from rundirs import N, a_manifest, make_run, write_result, write_rows

from mia_batch.cli import main
from mia_batch.errors import InputError
from mia_batch.rundir import first_look, first_looker
from mia_batch.rundir.features import FeatureStore, block_dtype, features_progress, is_sealed, read_features
from mia_batch.rundir.first_look import look_first
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack
from mia_batch.rundir.seal import WRITER_MARK, block_bytes, read_seal
from mia_batch.rundir.state import read_rows, read_state


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    """A run of N rows with a result."""
    paths, manifest = make_run(RunPaths(tmp_path), a_manifest()), a_manifest()
    write_rows(paths, manifest)
    write_result(paths, manifest, "lr")
    return paths


def test_every_flipped_bit_is_found(run: RunPaths) -> None:
    """Of HDF5's mark of a writer alone nothing depends."""
    rng = random.Random(0)
    for path, read in ((run.features, read_features), (run.attack("lr"), read_attack)):
        whole, seal = path.read_bytes(), read_seal(path)
        assert seal is not None
        assert seal.whole
        mark = range(seal.n_bytes + WRITER_MARK[0], seal.n_bytes + sum(WRITER_MARK))
        places = [each for each in rng.sample(range(len(whole)), 100) if each not in mark]
        for place in [*places, 0, 20, seal.n_bytes - 1, seal.n_bytes, len(whole) - 1]:
            data = bytearray(whole)
            data[place] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            with pytest.raises(InputError) as caught:
                read(path)
            assert len(caught.value.problems) == 1
            assert str(path) in str(caught.value)
        path.write_bytes(whole)
        read(path)


def test_parts_and_rest_cover_the_file_once(run: RunPaths) -> None:
    seal = read_seal(run.features)
    assert seal is not None
    covered = np.zeros(seal.size, int)
    for first, n_bytes, _ in seal.parts.values():
        covered[first : first + n_bytes] += 1
    assert covered.max() == 1
    with h5py.File(run.features) as file:
        assert set(seal.parts) == {name for name in file if isinstance(file[name], h5py.Dataset)}
        for name, part in seal.parts.items():
            data = run.features.read_bytes()[part.first : part.first + part.n_bytes]
            assert data == file[name][()].tobytes()


def test_a_file_is_sealed_when_its_last_row_is_done(tmp_path: Path) -> None:
    paths, manifest = make_run(RunPaths(tmp_path), a_manifest()), a_manifest()
    write_rows(paths, manifest, done=N - 1)
    assert not is_sealed(paths.features)
    with FeatureStore(paths.features) as store:
        row = np.zeros(1, block_dtype(10))
        row["row"] = N - 1
        store.write(row)
    assert is_sealed(paths.features)
    assert len(read_features(paths.features).member) == N


def test_a_file_whose_writer_died_before_the_seal_is_sealed_by_the_next(run: RunPaths) -> None:
    seal = read_seal(run.features)
    assert seal is not None
    seal.opened([name for name, part in seal.parts.items() if name in ("logits", "done", "loss")]).write()
    rows = read_rows(run)
    assert rows is not None
    assert (rows.done, rows.total, rows.complete) == (N, N, False)
    assert read_state(run)[0].state == "partial"
    with pytest.raises(InputError, match=r"rows: must all be done, got 20 of 20; run extract again"):
        read_features(run.features)
    with FeatureStore(run.features) as store:
        store.seal()
    assert read_state(run)[0].state == "done"
    read_features(run.features)


@pytest.mark.parametrize("name", ["logits", "loss", "content", "statistics", "check"])
def test_a_done_row_of_a_partial_file_that_changed_is_computed_again(tmp_path: Path, name: str) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    write_rows(paths, a_manifest(), done=N // 2)
    with h5py.File(paths.features) as file:
        place = file[name].id.get_offset() + 3 * file[name].nbytes // N
    data = bytearray(paths.features.read_bytes())
    data[place] ^= 4
    paths.features.write_bytes(data)
    with FeatureStore(paths.features) as store:
        assert np.flatnonzero(~store.done()).tolist() == [3, *range(N // 2, N)]


def test_a_mark_without_its_row_is_no_row(tmp_path: Path) -> None:
    paths = make_run(RunPaths(tmp_path), a_manifest())
    write_rows(paths, a_manifest(), done=N // 2)
    change(paths.features, lambda file: file["done"].__setitem__(slice(None), 1))
    assert features_progress(paths.features) == (N, N)
    with FeatureStore(paths.features) as store:
        assert store.done().sum() == N // 2
    assert not is_sealed(paths.features)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda f: f.move("label", "lable"), "must hold nothing but what a features file has, got lable"),
        (lambda f: (f.pop("split"), f.__setitem__("split", h5py.SoftLink("/label"))), "split: .* got a SoftLink"),
        (lambda f: f.create_group("attrs").__setitem__("self", f["/"]), "attrs/self: must be a dataset"),
        (lambda f: f.create_dataset("sample_id", data=np.zeros(N, "i4")), "sample_id: must be S of 1 dimensions"),
        (lambda f: f.create_dataset("sample_id", data=np.zeros(3, "S2")), "all rows must have every column"),
        (lambda f: f.create_dataset("sample_id", (1 << 40,), "S2", chunks=(9,)), "chunked dataset"),
        (lambda f: f.create_dataset("sample_id", (1 << 40,), "S2"), "must have all its 2199023255552 bytes"),
        (lambda f: (f.pop("check"), f.create_group("check")), "a features file has, got a group check"),
        (lambda f: f.pop("check"), "check: must be there, got none"),
        (lambda f: f["member"].__setitem__(2, 7), "member: must be 0 or 1, got 7 in row 2"),
        (lambda f: f["label"].__setitem__(1, -1), "label: must be 0 or 1 .* got -1 in row 1"),
        (lambda f: f.attrs.__setitem__("more", ["{}"] * 9), r"attribute more: must be one value of JSON text, got .*9"),
    ],
)  # fmt: skip
def test_the_form_is_checked_whoever_has_sealed_it(run: RunPaths, damage: object, rule: str) -> None:
    change_and_seal(run.features, damage)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rule) as caught:
        read_features(run.features)
    assert len(caught.value.problems) == 1


def share_text(path: Path, texts: list[str]) -> None:
    """Let the file have the longest of these texts alone, and all the others be that one."""
    data = bytearray(path.read_bytes())
    places = [data.index(struct.pack("<I", len(text))) for text in sorted(texts, key=len)]
    for place in places[:-1]:
        data[place : place + 16] = data[places[-1] : places[-1] + 16]
    path.write_bytes(data)
    change_and_seal(path, lambda _: None)


@pytest.mark.parametrize("of_attributes", [False, True])
def test_a_text_that_is_there_once_for_many_values_is_refused(run: RunPaths, of_attributes: bool) -> None:
    """Each value is a copy of it once it is read: a file of some MB takes the memory of a machine."""
    file, texts = run.attack("lr"), [json.dumps("x" * n) for n in (50_021, 70_001, 70_003, 70_005, 2_000_007)]

    def more(own: h5py.File) -> None:
        if of_attributes:
            for n, text in enumerate(texts):
                own.attrs[f"a{n}"] = text
        else:
            own["cv_results"].clear()
            own["cv_results"].create_dataset("params", data=texts, dtype=h5py.string_dtype())

    change_and_seal(file, more)
    assert read_attack(file).method == "lr"
    share_text(file, texts)
    rule = "must have each text in the file for itself, got [0-9]+ bytes"
    with pytest.raises(InputError, match=rule):
        read_attack(file)
    assert [each.state for each in read_state(run) if each.stage == "attack lr"] == ["damaged"]


def test_a_file_of_before_is_read_and_the_log_says_so_once(run: RunPaths, caplog: pytest.LogCaptureFixture) -> None:
    wanted = read_features(run.features)
    unseal(run.features)
    for _ in range(2):
        found = read_features(run.features)
    np.testing.assert_array_equal(found.logits, wanted.logits)
    assert [r.getMessage() for r in caplog.records if "wrote no digests" in r.getMessage()] == [
        f"{run.features}: is of a version that wrote no digests: its form was checked, its values cannot be"
    ]


def test_what_hdf5_finds_no_end_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is real, and really loops: it is told to look at a text that never ends."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("text", (1 << 44,), h5py.string_dtype(), chunks=(64,))[0] = "x"
    monkeypatch.setattr(first_look, "SECONDS", 1)
    with pytest.raises(InputError, match=r"a\.h5: must be an HDF5 file that can be read, .* found no end of it"):
        look_first(path, first_look.USERS, ())
    (tmp_path / "b.h5").write_bytes(b"text")
    with pytest.raises(InputError, match="file signature not found"):  # another process looks at the next
        look_first(tmp_path / "b.h5", first_look.USERS, ())
    assert first_looker.problems_of(tmp_path / "b.h5", first_look.USERS, ())


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lr.h5")
    with pytest.raises(InputError, match="got: a FIFO, which is no regular file"):
        read_attack(tmp_path / "lr.h5")


def test_the_block_has_room_for_long_names() -> None:
    names = [f"slices/{'x' * 500}{i}" for i in range(200)]
    assert block_bytes(["a"]) == 4096
    assert block_bytes(names) == 1 << 17


def verified(run: RunPaths, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    code = main(["verify", str(run.root)])
    lines = [line.split(None, 2) for line in capsys.readouterr().out.splitlines()]
    return code, {name.rstrip(":"): state for state, name, _ in lines}


def test_verify_says_of_each_file_how_it_is(run: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"run.json": "whole", "features.h5": "whole", "attacks/lr.h5": "whole"}
    assert verified(run, capsys) == (0, good)
    change(run.attack("lr"), lambda file: file["scores"].__setitem__(0, 0.25))
    assert verified(run, capsys) == (2, good | {"attacks/lr.h5": "bad"})
    unseal(run.features)
    write_result(run, a_manifest(), "lr", identity="of another run")
    assert verified(run, capsys) == (0, good | {"features.h5": "old", "attacks/lr.h5": "stale"})
    run.features.unlink()
    write_rows(run, a_manifest(), done=3)
    assert verified(run, capsys)[1]["features.h5"] == "partial"
    change(run.features, lambda file: file["logits"].__setitem__((1, 1), 9))
    assert verified(run, capsys) == (2, good | {"features.h5": "bad", "attacks/lr.h5": "stale"})
    run.manifest.unlink()
    assert main(["verify", str(run.root)]) == 2
