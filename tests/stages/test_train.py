"""Training on synthetic records: the step against its formula, resuming, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from running import REPO, one_line, run_job
from trainings import NETWORK, write_config, write_training

ms = pytest.importorskip("mindspore")

from mindspore import nn  # noqa: E402

from mia_batch.errors import InputError  # noqa: E402
from mia_batch.files import sha256  # noqa: E402
from mia_batch.mpi import launcher  # noqa: E402
from mia_batch.network import checkpoint  # noqa: E402
from mia_batch.network import train as training  # noqa: E402
from mia_batch.network.train import Ranks, learning_rates  # noqa: E402
from mia_batch.process.exit_codes import BAD_INPUT, OK, RESUME, run_stoppable  # noqa: E402
from mia_batch.process.stop import StopRequest  # noqa: E402
from mia_batch.settings.loading import load_config  # noqa: E402
from mia_batch.settings.schema import Config, TrainConfig  # noqa: E402
from mia_batch.stages import train  # noqa: E402
from mia_batch.stages.train import Files  # noqa: E402

ONE = '''
def build(num_classes): return nn.SequentialCell(Small(num_classes), nn.%s())
'''
HALF = '''
import numpy as np
class Half:
    def __init__(self, split):
        self.labels = np.arange(42) % 2
    def __len__(self):
        return 42
    def __getitem__(self, i):
        return np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8), self.labels[i]
'''


def run_train(config: Path) -> int:
    """jobs/train.py, in this process."""
    args = argparse.Namespace(config=str(config), changes=[], verbose=False, quiet=False)
    return run_stoppable(train.run_train_stage, args)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_training(tmp_path)


def load(path: Path) -> Config:
    return load_config(path, need=("data",))


class StopAfter(StopRequest):
    """A signal that arrives when the loop has looked so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def weights(path: Path) -> dict[str, np.ndarray]:
    return {name: parameter.asnumpy() for name, parameter in ms.load_checkpoint(str(path)).items()}


# --- the parts -------------------------------------------------------------------------------------------------------


def test_schedules() -> None:
    constant = learning_rates(TrainConfig(epochs=3, learning_rate=0.2, schedule="constant"), 4)
    np.testing.assert_array_equal(constant, np.full(12, 0.2, np.float32))
    cosine = learning_rates(TrainConfig(epochs=10, learning_rate=0.4, schedule="cosine"), 20)
    assert (cosine.shape, cosine.dtype) == ((200,), np.float32)
    assert cosine[4] == pytest.approx(cosine[0] * 5, rel=0.01)  # ten steps of rise
    assert cosine[100] == pytest.approx(0.2)
    assert 0 < cosine[-1] < 1e-4
    step = learning_rates(TrainConfig(epochs=10, learning_rate=0.4, schedule="step"), 10)
    assert [round(float(step[i]), 7) for i in (10, 29, 30, 59, 60, 89, 90, 99)] == [
        0.4, 0.4, 0.04, 0.04, 0.004, 0.004, 0.0004, 0.0004,
    ]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_single_step_has_a_positive_rate(schedule: str) -> None:
    assert learning_rates(TrainConfig(epochs=1, schedule=schedule), 1)[0] > 0


def test_step_is_softmax_regression_with_momentum_and_decay() -> None:
    """Three steps against the closed form: v = 0.9 v + g, w = w - rate v; the bias is not decayed."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((6, 4)).astype(np.float32), np.array([0, 2, 1, 1, 0, 2], np.int32)
    network = nn.SequentialCell([nn.Flatten(), nn.Dense(4, 3)])
    weight, bias = (p.asnumpy().astype(float) for p in network.trainable_params())
    optimizer = nn.Momentum(training.parameter_groups(network), [0.5, 0.3, 0.1], 0.9, weight_decay=0.01)
    step = training.TrainStep(network, optimizer, Ranks())
    v_weight, v_bias = np.zeros_like(weight), np.zeros_like(bias)
    for rate in (0.5, 0.3, 0.1):
        z = x @ weight.T + bias
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        loss, right = step(ms.Tensor(x), ms.Tensor(y))
        assert float(loss.asnumpy()) == pytest.approx(-np.log(p[np.arange(6), y]).mean(), rel=1e-4)
        assert int(right.asnumpy()) == (z.argmax(axis=1) == y).sum()
        error = (p - np.eye(3)[y]) / 6
        v_weight = 0.9 * v_weight + error.T @ x + 0.01 * weight
        v_bias = 0.9 * v_bias + error.sum(axis=0)
        weight, bias = weight - rate * v_weight, bias - rate * v_bias
    for parameter, expected in zip(network.trainable_params(), (weight, bias), strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=1e-4, atol=1e-6)


# --- a whole training ------------------------------------------------------------------------------------------------


def test_it_memorises_and_is_not_repeated(config_file: Path) -> None:
    config = load(write_config(config_file.parent, train={"epochs": 40}))
    assert train.train(config, StopRequest(), Ranks()) == 40
    files = Files(config.model.checkpoint)
    assert sorted(path.name for path in files.checkpoint.parent.iterdir()) == ["net.ckpt", "net.ckpt.json"]
    record = json.loads(files.provenance.read_text())
    assert (record["sha256"], record["epochs"], record["accuracy"]) == (sha256(files.checkpoint), 40, 1.0)
    assert record["config"] == config.resolved()
    assert {"mindspore", "numpy", "python"} <= record["versions"].keys()

    network = checkpoint.load_network(config.model, (8, 8))  # the audit reads what training wrote
    assert set(weights(files.checkpoint)) == set(network.parameters_dict())

    before = files.checkpoint.stat().st_mtime_ns
    attack = {"methods": [{"method": "knn", "params": {"n_neighbors": [3]}}]}
    again = load(write_config(config_file.parent, train={"epochs": 40, "checkpoint_every": 3}, attack=attack))
    assert train.train(again, StopRequest(), Ranks()) == 40
    assert files.checkpoint.stat().st_mtime_ns == before


@pytest.mark.parametrize("looks", [2, 9])  # in the first epoch of four steps, and in the second
@pytest.mark.parametrize("augment", [False, True])
def test_stopped_and_resumed_is_bit_equal_to_unbroken(config_file: Path, looks: int, augment: bool) -> None:
    data = {"augment_members": augment}
    short = {"epochs": 4, "checkpoint_every": 1}
    unbroken = load(write_config(config_file.parent, train=short, data=data, model={"checkpoint": "a/net.ckpt"}))
    train.train(unbroken, StopRequest(), Ranks())
    broken = load(write_config(config_file.parent, train=short, data=data, model={"checkpoint": "b/net.ckpt"}))
    assert train.train(broken, StopAfter(looks), Ranks()) < 4
    files = Files(broken.model.checkpoint)
    assert [path.name for path in files.checkpoint.parent.iterdir()] == [files.state.name]
    assert train.train(broken, StopRequest(), Ranks()) == 4
    expected = weights(unbroken.model.checkpoint)
    for name, array in weights(files.checkpoint).items():
        np.testing.assert_array_equal(array, expected[name])
    assert not files.state.exists()


TOKENS = """
import numpy as np
import mindspore as ms
from mindspore import nn

class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.embedding, self.classifier = nn.Embedding(50, 16), nn.Dense(16, 3)
    def construct(self, ids, mask):
        return self.classifier((self.embedding(ids) * mask.astype(ms.float32).expand_dims(-1)).sum(axis=1))

def build(): return Network()

class Items(list):
    def __getitem__(self, i):
        ids = np.random.default_rng(i).integers(1, 50, 3 + i % (len(self) // 5))
        return {"mask": np.ones(len(ids), bool), "ids": ids}, i % 3

def make(split):
    if split == "gone": raise FileNotFoundError("no such split")
    return Items(range(30 if split == "train" else 60))

def seen_as_floats(given): return given["ids"], given["mask"].astype(np.float64)
"""


def tokens_config(folder: Path, **data: Any) -> Config:
    (folder / "tokens.py").write_text(TOKENS)
    path = write_config(folder, model={"factory": "tokens.py:build"}, train={"epochs": 40, "learning_rate": 0.3}, data={
        "source": "tokens.py:make", "preprocess": "none", "pad": 0, **data,
    })  # fmt: skip
    raw = yaml.safe_load(path.read_text())
    for key in ("path", "image_size"):
        del raw["data"][key]
    path.write_text(yaml.safe_dump(raw))
    return load(path)


def test_it_trains_on_padded_tokens_with_masks_by_name_or_through_a_function(config_file: Path) -> None:
    for preprocess in ("none", "tokens.py:seen_as_floats"):
        config = tokens_config(config_file.parent, preprocess=preprocess)
        assert train.train(config, StopRequest(), Ranks()) == 40
        files = Files(config.model.checkpoint)
        record = json.loads(files.provenance.read_text())
        assert record["accuracy"] > 0.9
        assert record["identity"]["data.preprocess"] == preprocess.rpartition(":")[2]
        assert record["identity"]["data.pad"] == 0
        files.checkpoint.unlink()


def test_training_pads_to_what_the_audit_pads_to(config_file: Path) -> None:
    """The longest member has 8 tokens, the longest non-member 14."""
    trainer = training.Trainer(tokens_config(config_file.parent), Ranks())
    assert [array.shape for array in trainer.form.arrays] == [(14,), (14,)]
    config = tokens_config(config_file.parent, nonmembers={"split": "gone"})
    with pytest.raises(InputError) as caught:
        training.Trainer(config, Ranks())
    assert caught.value.problems[0].startswith("data.pad_to: is required to train where non-members cannot be read")
    config = tokens_config(config_file.parent, nonmembers={"split": "gone"}, pad_to=9)
    assert [array.shape for array in training.Trainer(config, Ranks()).form.arrays] == [(9,), (9,)]


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_a_network_with_one_output_is_trained_and_loads(config_file: Path, output: str) -> None:
    """Labels are 0 and 1; `num_classes: 1`, as such networks are made with, is no contradiction to two columns."""
    (config_file.parent / "half.py").write_text(HALF)
    last = "Sigmoid" if output == "probabilities" else "Identity"
    (config_file.parent / "one.py").write_text(NETWORK + ONE % last)
    data = {"source": "half.py:Half", "mean": [0.5] * 3, "std": [0.25] * 3}
    model = {"factory": "one.py:build", "kwargs": {"num_classes": 1}, "output": output}
    content = write_config(config_file.parent, train={"epochs": 40}, model=model, data=data).read_text()
    config_file.write_text(content.replace("  path: .\n", ""))
    config = load(config_file)
    assert train.train(config, StopRequest(), Ranks()) == 40
    files = Files(config.model.checkpoint)
    assert json.loads(files.provenance.read_text())["accuracy"] == 1.0
    assert checkpoint.load_network(config.model, (8, 8)).parameters_dict()["0.classifier.weight"].shape == (1, 128)
    assert config.model.n_columns() == 2


def test_fewer_members_than_a_batch(config_file: Path) -> None:
    data = {"members": {"split": "train", "num_samples": 3}}
    config = load(write_config(config_file.parent, data=data, train={"epochs": 2}))
    assert train.train(config, StopRequest(), Ranks()) == 2


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_state_of_another_configuration_is_refused_and_kept(config_file: Path) -> None:
    config = load(config_file)
    train.train(config, StopAfter(3), Ranks())
    state = Files(config.model.checkpoint).state
    before = state.read_bytes()
    other = load(write_config(config_file.parent, "other.yaml", train={"learning_rate": 0.01}))
    with pytest.raises(InputError, match="must be the state of this configuration's training, got another's"):
        train.train(other, StopRequest(), Ranks())
    assert state.read_bytes() == before
    state.write_bytes(before[:-7])
    with pytest.raises(InputError, match="must be a complete MindSpore checkpoint"):
        train.train(config, StopRequest(), Ranks())


def test_a_checkpoint_of_anything_else_is_never_overwritten(config_file: Path) -> None:
    config = load(write_config(config_file.parent, train={"epochs": 1}))
    files = Files(config.model.checkpoint)
    files.checkpoint.parent.mkdir()
    files.checkpoint.write_bytes(b"precious")
    with pytest.raises(InputError, match="must not be there before training, got one not written by it"):
        train.train(config, StopRequest(), Ranks())
    assert files.checkpoint.read_bytes() == b"precious"
    files.checkpoint.unlink()
    train.train(config, StopRequest(), Ranks())
    other = load(write_config(config_file.parent, "other.yaml", train={"epochs": 2}))
    with pytest.raises(InputError, match=r"is of another training: train\.epochs was 1 and is now 2"):
        train.train(other, StopRequest(), Ranks())
    with open(files.checkpoint, "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="must be as training wrote it"):
        train.train(config, StopRequest(), Ranks())


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"train": {"learning_rate": 1e30}}, r"train\.learning_rate: loss must stay finite, got (nan|inf) in epoch 1"),
        ({"model": {"kwargs": {"classes": 2}}}, r"train sample \d+: label must be in \[0, 2\), got \d"),
        ({"model": {"checkpoint": "out/net.pth"}}, r"must end in \.ckpt to be trained to, got net\.pth"),
        ({"model": {"checkpoint": "net.py/net.ckpt"}}, r"folder .*net\.py must be writable"),
        ({"data": {"members": {"split": "train", "num_samples": 99}}}, "must stay within split 'train' of 42 samples"),
    ],
)
def test_bad_trainings_are_one_line_and_leave_no_checkpoint(
    config_file: Path, changes: dict[str, Any], rule: str
) -> None:
    config = load(write_config(config_file.parent, **changes))
    with pytest.raises(InputError, match=rule) as caught:
        train.train(config, StopRequest(), Ranks())
    assert len(str(caught.value).splitlines()) == 1
    assert not config.model.checkpoint.exists()


@pytest.mark.parametrize(
    "environ", [{"PMI_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "4"}, {"SLURM_STEP_NUM_TASKS": "2"}]
)
def test_several_ranks_on_cpu_under_mpirun_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(InputError, match="must be trained by one rank on CPU"):
        training.connect_ranks("CPU", environ)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one_with_twice_the_batch(config_file: Path) -> None:
    """Each takes half of the rows of a batch, and the mean of their gradients is the batch's."""
    folder = config_file.parent
    # Without batch normalisation, whose statistics are each rank's own.
    (folder / "net.py").write_text(NETWORK.replace("nn.BatchNorm2d(8), ", ""))
    alone = write_config(folder, "alone.yaml", train={"epochs": 2, "batch_size": 20})
    together = write_config(
        folder, "together.yaml", train={"epochs": 2, "batch_size": 10}, model={"checkpoint": "out/together.ckpt"}
    )
    assert train.train(load(alone), StopRequest(), Ranks()) == 2
    msrun = [str(Path(sys.prefix) / "bin" / "msrun"), "--worker_num=2", "--local_worker_num=2", "--join=True"]
    msrun += [f"--master_port={free_port()}", f"--log_dir={folder / 'logs'}"]
    command = [*msrun, str(REPO / "jobs" / "train.py"), str(together)]
    environ = os.environ | {"PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (weights(load(path).model.checkpoint) for path in (together, alone))
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        np.testing.assert_allclose(weight, theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert json.loads(Files(load(together).model.checkpoint).provenance.read_text())["rank_size"] == 2


def test_one_rank_needs_no_communication() -> None:
    for environ in ({}, {"PMI_SIZE": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        assert training.connect_ranks("CPU", environ) == Ranks(0, 1)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, (3, 8)),
        ({"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, (1, 2)),
        ({"SLURM_LOCALID": "2", "SLURM_NTASKS_PER_NODE": "8"}, (2, 3)),
    ],
)
def test_place_on_the_node(environ: dict[str, str], place: tuple[int, int]) -> None:
    assert launcher.local_place(environ) == place


def test_job_refuses_a_bad_config(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_train(write_config(config_file.parent, train={"epochs": 0})) == BAD_INPUT
    assert "train.epochs" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_job_stops_at_a_signal_and_goes_on(config_file: Path, signum: int) -> None:
    path = write_config(config_file.parent, train={"epochs": 4000, "schedule": "constant"})
    command = [sys.executable, str(REPO / "jobs" / "train.py"), str(path)]
    environ = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stderr
        for line in process.stderr:
            if "epoch 2/" in line:
                break
        process.send_signal(signum)
        rest = process.stderr.read()
    assert process.returncode == RESUME
    assert "the same command goes on from there" in rest
    shorter = load(path)
    assert Files(shorter.model.checkpoint).state.exists()
    assert 2 <= train.train(shorter, StopAfter(0), Ranks()) < 4000


def test_job_trains(config_file: Path) -> None:
    path = write_config(config_file.parent, train={"epochs": 1})
    assert run_train(path) == OK
    assert load(path).model.checkpoint.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.write_parameters(tmp_path / "net.tmp", [{"name": "w", "data": ms.Tensor(np.zeros(9000))}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_cannot_train_together_say_so_once(write_config: Callable[..., Path]) -> None:
    line = one_line(run_job("train", write_config(), ranks=2))
    assert "train: must be trained by one rank on CPU, or by msrun's" in line
