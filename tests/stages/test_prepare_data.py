"""Samples prepared once give the bits that reading them from their source gives, also after a stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch import json_text
from mia_batch.data.prepared import Prepared, is_worth_it
from mia_batch.errors import InputError
from mia_batch.inputs import INPUT_DTYPE, STATISTICS
from mia_batch.network import batches
from mia_batch.process.exit_codes import run_stoppable
from mia_batch.process.stop import StopRequest
from mia_batch.rundir import identity
from mia_batch.settings.loading import load_config
from mia_batch.stages import plan, prepare_data
from mia_batch.stages.arguments import stage_parser


def prepare_main(arguments: list[str]) -> int:
    """jobs/prepare.py, in this process."""
    return run_stoppable(prepare_data.prepare_data, stage_parser("prepare", "").parse_args(arguments))


SOURCE = """
import numpy as np

class Images:
    def __init__(self, kind):
        self.kind = kind
        self.labels = np.arange(150) % 10

    def __len__(self):
        return 150

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        size = (32, 32, 3) if i % 2 else (40, 30, 3)
        image = rng.integers(0, 256, size, dtype=np.uint8)
        label = i % 10 + (self.kind == "relabelled" and i == 141)
        return (image / 1.5 if self.kind == "float" or (self.kind == "mixed" and i > 140) else image), label

def make(split, kind):
    return Images(kind)
"""

Write = Callable[..., Path]


@pytest.fixture
def source_config(tmp_path: Path, write_config: Write) -> Write:
    """A config of images of two sizes."""
    (tmp_path / "images.py").write_text(SOURCE)
    own = {"data.source": "images.py:make", "data.path": None}
    return lambda kind, **more: write_config({**own, "data.kwargs": {"kind": kind}, **more})


@pytest.fixture
def network() -> Any:
    """What takes one input, or two of these names."""
    from mindspore import nn

    class Takes(nn.Cell):
        def construct(self, ids: Any, mask: Any = None) -> Any:
            return ids

    return Takes()


@pytest.mark.parametrize("kind", ["bytes", "float"])
@pytest.mark.parametrize("augment", [False, True])
def test_prepared_samples_are_those_of_the_source(
    tmp_path: Path, source_config: Write, network: Any, kind: str, augment: bool
) -> None:
    config_file, folder = source_config(kind, **{"data.augment_members": augment}), tmp_path / "prepared"
    config = load_config(config_file)
    planned = plan.make_plan(config, whole_checkpoint=False)
    assert is_worth_it(config.data)
    assert prepare_main([str(config_file), "--out", str(folder)]) == 0
    opened = Prepared(folder).open(identity.data_digest(planned.manifest))
    selection, kept = opened.selection, opened.kept
    for name in ("sample_index", "split", "label", "member", "group"):
        np.testing.assert_array_equal(getattr(selection, name), getattr(planned.selection, name))
    rows = np.arange(len(selection))
    direct = batches.batches(config.data, planned.selection, rows, 16, network=network)
    mapped = batches.batches(config.data, selection, rows, 16, network=network, read=opened.read)
    for one, other in zip(direct, mapped, strict=True):
        for name, here, there in zip(("rows", "inputs", "labels", "kept"), one, other, strict=True):
            np.testing.assert_array_equal(here, there, err_msg=name)
    assert set(kept["statistics"][:, STATISTICS.index("height")]) == {32, 40}  # as read, not as resized
    assert len(np.unique(kept["content"], axis=0)) == 150  # members and non-members are the same 150 images


def stop_early(torn: Prepared, whole: Prepared) -> None:
    """Make the folder of a preparation that was stopped before its first row."""
    torn.folder.mkdir()
    (torn.folder / "identity").write_text((whole.folder / "identity").read_text())


@pytest.mark.parametrize("torn_more", ["more", "fewer"])
def test_a_stopped_preparation_goes_on_and_ends_the_same(
    tmp_path: Path, source_config: Write, torn_more: str
) -> None:
    config_file = str(source_config("bytes"))
    whole, torn = Prepared(tmp_path / "whole"), Prepared(tmp_path / "torn")
    assert prepare_main([config_file, "--out", str(whole.folder)]) == 0
    stop_early(torn, whole)
    n_kept = {"more": 101, "fewer": 90}[torn_more]
    torn.images.write_bytes(whole.images.read_bytes()[: 32 * 32 * 3 * 100 + 17])
    torn.kept.write_bytes(whole.kept.read_bytes()[: INPUT_DTYPE.itemsize * n_kept + 3])
    torn.check.write_bytes(whole.check.read_bytes()[: 4 * 95 + 1])
    assert prepare_main([config_file, "--out", str(torn.folder)]) == 0
    assert torn.images.read_bytes() == whole.images.read_bytes()
    assert torn.kept.read_bytes() == whole.kept.read_bytes()
    assert torn.check.read_bytes() == whole.check.read_bytes()
    before = os.stat(whole.images).st_mtime_ns
    assert prepare_main([config_file, "--out", str(whole.folder)]) == 0
    assert os.stat(whole.images).st_mtime_ns == before


ARRAYS = """
import numpy as np

class Items:
    labels = np.arange(150) % 10

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 150

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        ids = rng.integers(1, 99, rng.integers(3, 12))
        items = {"vector": rng.normal(size=7), "tuple": (ids, ids > 50), "dict": {"mask": ids > 50, "ids": ids}}
        return items[self.kind], i % 10

def make(split, kind):
    return Items(kind)

def double(x):
    return 2 * x
"""


@pytest.fixture
def array_config(tmp_path: Path, write_config: Write) -> Write:
    """A config of arrays of one kind."""
    (tmp_path / "items.py").write_text(ARRAYS)
    own = {"data.source": "items.py:make", "data.path": None, "data.preprocess": "none"}
    pads = {"vector": {}, "tuple": {"data.pad": 0}, "dict": {"data.pad": 0, "data.pad_to": 15}}
    return lambda kind, **more: write_config({**own, "data.kwargs": {"kind": kind}, **pads[kind], **more})


@pytest.mark.parametrize("kind", ["vector", "tuple", "dict", "function"])
def test_prepared_arrays_are_those_of_the_source_also_after_a_kill(
    tmp_path: Path, array_config: Write, network: Any, kind: str
) -> None:
    changes = {"data.preprocess": "items.py:double"} if kind == "function" else {}
    config_file = array_config("vector" if kind == "function" else kind, **changes)
    config, whole, torn = load_config(config_file), Prepared(tmp_path / "whole"), Prepared(tmp_path / "torn")
    planned = plan.make_plan(config, whole_checkpoint=False)
    assert prepare_main([str(config_file), "--out", str(whole.folder)]) == 0
    opened, rows = whole.open(identity.data_digest(planned.manifest)), np.arange(300)
    assert len(opened.inputs.columns) == (2 if kind in ("tuple", "dict") else 1)
    direct = batches.batches(config.data, planned.selection, rows, 16, network=network)
    mapped = batches.batches(config.data, opened.selection, rows, 16, network=network, read=opened.read)
    for one, other in zip(direct, mapped, strict=True):
        for here, there in zip((one[0], *one[1], *one[2:]), (other[0], *other[1], *other[2:]), strict=True):
            assert here.dtype == there.dtype
            np.testing.assert_array_equal(here, there)
    stop_early(torn, whole)
    files = whole.arrays(opened.inputs.kind, len(opened.inputs.columns))
    for i, file in enumerate((*files, whole.kept)):
        (torn.folder / file.name).write_bytes(file.read_bytes()[: file.stat().st_size * (40 + i) // 100 + 1])
    assert prepare_main([str(config_file), "--out", str(torn.folder)]) == 0
    for file in whole.files():
        assert (torn.folder / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("change", ["source", "config", "no identity"])
def test_rows_of_other_data_do_not_stay_under_a_new_name(
    tmp_path: Path, source_config: Write, monkeypatch: pytest.MonkeyPatch, capsys: Any, change: str
) -> None:
    """A stopped preparation goes on after its source or its config was edited."""
    monkeypatch.setattr(prepare_data, "available_cpus", lambda: 1)  # other processes would keep the former source
    config_file, folder = source_config("bytes"), tmp_path / "prepared"
    prepared, stop, source = Prepared(folder), StopRequest(), tmp_path / "images.py"
    stop.signal = signal.SIGUSR1
    assert prepare_data.prepare(load_config(config_file), prepared, stop) == 75
    former = prepared.images.read_bytes()
    assert len(former) == prepare_data.BLOCK * 32 * 32 * 3
    if change == "source":
        source.write_text(source.read_text().replace("default_rng(i)", "default_rng(i + 1000)"))
    elif change == "config":
        config_file = source_config("bytes", **{"data.members": {"split": "train", "range": [40, 140]}})
    else:
        (folder / "identity").unlink()
    prepare_data._opened.clear()  # as in the process of the next job
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(source)]:
        monkeypatch.delitem(sys.modules, name)
    assert prepare_main([str(config_file), "--out", str(folder)]) == 0
    assert "what is there is of other data; it is prepared anew" in capsys.readouterr().err
    whole = Prepared(tmp_path / "whole")
    assert prepare_main([str(config_file), "--out", str(whole.folder)]) == 0
    for file in whole.files():
        assert (folder / file.name).read_bytes() == file.read_bytes()
    assert prepared.images.read_bytes().startswith(former) == (change == "no identity")


def test_what_the_version_before_has_prepared_is_prepared_anew(tmp_path: Path, source_config: Write) -> None:
    config_file, prepared = str(source_config("bytes")), Prepared(tmp_path / "prepared")
    assert prepare_main([config_file, "--out", str(prepared.folder)]) == 0
    whole = prepared.images.read_bytes()
    meta = prepared.folder / "meta.json"
    good = json_text.read(meta)
    meta.write_text(json_text.written({key: value for key, value in good.items() if key != "identity"}))
    with pytest.raises(InputError, match="'identity'"):
        prepared.open(good["identity"])
    meta.write_text(json_text.written(good))
    prepared.check.unlink()
    meta.write_text(json_text.written(json_text.read(meta) | {"schema": 2}))
    assert not prepared.is_complete()
    with pytest.raises(InputError, match="schema 2"):
        prepared.open(json_text.read(meta)["identity"])
    assert prepare_main([config_file, "--out", str(prepared.folder)]) == 0
    assert prepared.is_complete()
    assert prepared.images.read_bytes() == whole
    assert prepared.kept.stat().st_size == INPUT_DTYPE.itemsize * len(whole) // (32 * 32 * 3)


@pytest.mark.parametrize("name", ["images", "inputs", "check", "selection.npz"])
def test_every_flipped_bit_of_what_is_prepared_is_found(tmp_path: Path, source_config: Write, name: str) -> None:
    config_file, prepared = source_config("bytes"), Prepared(tmp_path / "prepared")
    assert prepare_main([str(config_file), "--out", str(prepared.folder)]) == 0
    identity, rng = json_text.read(prepared.folder / "meta.json")["identity"], np.random.default_rng(0)
    whole = (prepared.folder / name).read_bytes()
    for _ in range(20):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (prepared.folder / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            prepared.open(identity).read(np.arange(300)[::-1])
        assert len(caught.value.problems) == 1
    (prepared.folder / name).write_bytes(whole)
    _, kept = prepared.open(identity).read(np.array([7, 3]))
    np.testing.assert_array_equal(kept, prepared.open(identity).kept[[7, 3]])


def test_what_is_not_this_data_is_refused(tmp_path: Path, source_config: Write) -> None:
    config_file, prepared = source_config("bytes"), Prepared(tmp_path / "prepared")
    with pytest.raises(InputError, match="--prepared: must hold"):
        prepared.open("x")
    assert prepare_main([str(config_file), "--out", str(prepared.folder)]) == 0
    with pytest.raises(InputError, match="must be of the data of this config"):
        prepared.open("x")


def test_bytes_and_floats_do_not_mix(
    tmp_path: Path, source_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_main([str(source_config("mixed")), "--out", str(tmp_path / "prepared")]) == 2
    assert "image must be uint8, as the first sample's is, got float32" in capsys.readouterr().err
    assert not Prepared(tmp_path / "prepared").is_complete()


def test_a_label_that_is_another_with_its_image_is_one_line(
    tmp_path: Path, source_config: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one sample that nothing has looked at before."""
    config = source_config("relabelled")
    assert prepare_main([str(config), "--out", str(tmp_path / "prepared")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    rule = "the label read with the input must equal the one in labels or targets, or read alone, got 2 and 1"
    assert line == f"mia-batch: {config}: data.source: train sample 141: {rule}"
    assert not Prepared(tmp_path / "prepared").is_complete()
