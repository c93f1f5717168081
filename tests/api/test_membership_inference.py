"""MindArmour's interface on real MindSpore models and data sets: figures, what is left out of them, what is refused."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mindspore")

import mindspore as ms
from mindspore import Tensor, nn
from mindspore import dataset as ds
from mindspore.dataset import vision
from mindspore.train import Model
from running import REPO, code_blocks
from sklearn.linear_model import LogisticRegression

import mia_batch
from mia_batch import MembershipInference, audit, signals
from mia_batch.errors import InputError
from mia_batch.network.membership import random_operations

CLASSES, N = 4, 500  # N of each side in each of train and eval
CONFIG = [
    {"method": "LR", "params": {"C": np.logspace(-2, 0, 2)}},
    {"method": "knn", "params": {"n_neighbors": [3, np.int64(9)]}},
]
METRICS = ["precision", "accuracy", "recall"]
Arrays = tuple[np.ndarray, np.ndarray]


def a_model(*, width: int = CLASSES, **options: Any) -> Model:
    """A network whose logits are its flattened input."""
    layer = nn.Dense(width, CLASSES, weight_init=Tensor(np.eye(CLASSES, width), ms.float32), has_bias=False)
    return Model(nn.SequentialCell(nn.Flatten(), layer), **options)


@pytest.fixture(scope="module")
def model() -> Model:
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    made = a_model()
    optimizer = nn.Momentum(made.train_network.trainable_params(), 0.1, 0.9)
    return Model(network=made.train_network, loss_fn=loss, optimizer=optimizer, metrics={"accuracy": nn.Accuracy()})


def draw(n: int, member: int, seed: int) -> Arrays:
    """Inputs (n, 1, 2, 2) of which the model is surer if they are members, and labels."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, n)
    sure = 1.5 + 1.5 * member + rng.normal(0, 0.3, n)
    logits = rng.normal(size=(n, CLASSES)) + sure[:, None] * (label[:, None] == np.arange(CLASSES))
    return logits.astype(np.float32).reshape(n, 1, 2, 2), label.astype(np.int32)


class Rows:
    """A user's own source."""

    def __init__(self, arrays: Arrays) -> None:
        self.image, self.label = arrays

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.int32]:
        return self.image[i], self.label[i]


def dataset(arrays: Arrays, *, batch: int | None = 64, names: Sequence[str] = ("image", "label")) -> Any:
    made = ds.GeneratorDataset(Rows(arrays), list(names), shuffle=False)
    return made.batch(batch) if batch else made


def joined(*parts: Arrays) -> Arrays:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


MEMBERS, OTHERS, NEW_MEMBERS, NEW_OTHERS = (draw(N, side, seed) for seed, side in enumerate((1, 0, 1, 0)))


@pytest.fixture(scope="module")
def trained(model: Model) -> MembershipInference:
    attacker = MembershipInference(model, n_jobs=1)
    attacker.train(dataset(MEMBERS), dataset(OTHERS), CONFIG)
    return attacker


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The warnings so far."""
    monkeypatch.setattr(logging.getLogger("mia_batch"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- the figures -----------------------------------------------------------------------------------------------------


def test_figures_are_those_of_a_stock_fit(trained: MembershipInference, said: Callable[[], list[str]]) -> None:
    result = trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), METRICS)
    assert [list(each) for each in result] == [METRICS, METRICS]
    assert [each.method for each in trained.attackers] == ["lr", "knn"]

    def features(members: Arrays, others: Arrays) -> Arrays:
        images, labels = joined(members, others)
        logits = images.reshape(len(images), -1)
        return np.column_stack([signals.loss(logits, labels), logits]), np.repeat([1, 0], len(images) // 2)

    X, y = features(MEMBERS, OTHERS)
    X_new, truth = features(NEW_MEMBERS, NEW_OTHERS)
    stock = LogisticRegression(max_iter=300, **trained.attackers[0].params).fit(X, y).predict(X_new)
    assert result[0]["accuracy"] == pytest.approx((stock == truth).mean(), abs=0.003)
    assert result[0]["precision"] == pytest.approx(truth[stock == 1].mean(), abs=0.003)
    assert result[0]["recall"] == pytest.approx(stock[truth == 1].mean(), abs=0.003)
    interval = trained.estimates[0]["accuracy"]
    assert interval.low < result[0]["accuracy"] == interval.value < interval.high
    assert said() == []


def test_figures_are_those_of_an_audit(model: Model) -> None:
    """In short what the tutorial's code and `mia-batch run` give on the same data, one part held out."""
    members, others = (draw(4000, side, 20 + side) for side in (1, 0))
    parts = [[dataset(tuple(array[rows] for array in arrays)) for arrays in (members, others)]
             for rows in (slice(3000), slice(3000, None))]  # fmt: skip
    attacker = MembershipInference(model, n_jobs=1)
    attacker.train(*parts[0], CONFIG)
    result = attacker.eval(*parts[1], METRICS)
    audited = audit(
        member=(members[0].reshape(4000, -1), members[1]), nonmember=(others[0].reshape(4000, -1), others[1]),
        attacks=[{**each, "method": each["method"].lower()} for each in CONFIG], eval="holdout", eval_fraction=0.25,
        features="logits_loss", n_jobs=1,
    )  # fmt: skip
    for found, method in zip(result, ("lr", "knn"), strict=True):
        assert found["accuracy"] > 0.65
        for metric in METRICS:
            assert found[metric] == pytest.approx(audited.metrics[method][metric].value, abs=0.03)


def test_other_data_sets_of_the_same_samples_say_the_same(trained: MembershipInference) -> None:
    expected = trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), METRICS)
    single = [dataset(arrays, batch=None) for arrays in (NEW_MEMBERS, NEW_OTHERS)]
    assert trained.eval(*single, tuple(METRICS)) == expected
    image, label = NEW_OTHERS
    columns = {"index": np.arange(N), "label": label[:, None].astype(np.int64), "image": image.astype(np.float64)}
    slices = ds.NumpySlicesDataset(columns, shuffle=True).batch(50)
    assert trained.eval(single[0], slices, METRICS) == expected


def test_more_training_adds_attackers(model: Model) -> None:
    attacker = MembershipInference(model, n_jobs=1)
    for config in CONFIG:
        attacker.train(dataset(MEMBERS), dataset(OTHERS), (config,))
    both = attacker.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), ["accuracy"])
    attacker = MembershipInference(model, n_jobs=2)
    attacker.train(dataset(MEMBERS), dataset(OTHERS), [*CONFIG, CONFIG[0]])
    again = attacker.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), ["accuracy"])
    assert again == [*both, both[0]]


def test_a_model_needs_no_loss_and_inputs_need_be_no_images() -> None:
    attacker = MembershipInference(a_model(), n_jobs=1)
    flat = [dataset((images.reshape(N, -1), labels)) for images, labels in (MEMBERS, OTHERS, NEW_MEMBERS, NEW_OTHERS)]
    attacker.train(flat[0], flat[1], CONFIG[:1])
    assert attacker.eval(flat[2], flat[3], ["recall"])[0]["recall"] > 0.7


class OfWords(nn.Cell):
    """Logits are the mean of what its embedding has for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, CLASSES)

    def construct(self, image: Tensor) -> Tensor:
        return self.embedding(image).mean(axis=1)


class Centred(nn.Cell):
    """It uses the batch's own mean."""

    def construct(self, x: Any) -> Any:
        z = x.reshape((len(x), -1))
        return z - z.mean(axis=0, keep_dims=True)


def test_a_model_whose_answers_depend_on_the_batch_is_refused() -> None:
    batches = [
        ds.NumpySlicesDataset(draw(64, side, seed=side), ["image", "label"], shuffle=False).batch(16) for side in (1, 0)
    ]
    with pytest.raises(InputError, match="sample 0 of dataset_train: must get one answer each time and whatever samp"):
        MembershipInference(Model(Centred()), n_jobs=1).train(*batches, CONFIG[:1])


def test_words_stay_integers() -> None:
    rng = np.random.default_rng(0)
    parts = [dataset((rng.integers(0, 50, (40, 6)).astype(np.int32), rng.integers(0, CLASSES, 40))) for _ in range(4)]
    attacker = MembershipInference(Model(OfWords()), n_jobs=1)
    attacker.train(*parts[:2], CONFIG[:1])
    assert 0 <= attacker.eval(*parts[2:], ["accuracy"])[0]["accuracy"] <= 1


def test_a_metric_without_a_value_is_nan(trained: MembershipInference, said: Callable[[], list[str]]) -> None:
    """Samples of which the model is so unsure that no attacker takes them for members."""
    label = np.arange(8) % CLASSES
    unsure = [
        dataset((np.float32(k) * -np.eye(CLASSES, dtype=np.float32)[label].reshape(8, 1, 2, 2), label)) for k in (8, 9)
    ]
    assert np.isnan(trained.eval(*unsure, ["precision"])[0]["precision"])
    assert "lr: precision is undefined: no sample is predicted a member" in said()


# --- what is left out ------------------------------------------------------------------------------------------------


def test_samples_that_train_has_seen_are_left_out_and_counted(
    trained: MembershipInference, said: Callable[[], list[str]]
) -> None:
    expected = trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), METRICS)
    some = [tuple(array[:k] for array in arrays) for k, arrays in ((300, MEMBERS), (20, OTHERS))]
    mixed = [dataset(joined(old, new)) for old, new in zip(some, (NEW_MEMBERS, NEW_OTHERS), strict=True)]
    assert trained.eval(*mixed, METRICS) == expected
    assert said() == [
        "eval: train has seen 300 of 800 members and 20 of 520 non-members: left out; the figures are of 500 members "
        "and 500 non-members"
    ]


def test_what_was_seen_on_the_other_side_is_left_out_too(
    trained: MembershipInference, said: Callable[[], list[str]]
) -> None:
    expected = trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), METRICS)
    swapped = joined(tuple(array[:50] for array in OTHERS), NEW_MEMBERS)
    assert trained.eval(dataset(swapped), dataset(NEW_OTHERS), METRICS) == expected
    assert "train has seen 50 of 550 members and 0 of 500 non-members" in said()[0]


def test_inputs_on_both_sides_neither_fit_nor_score(model: Model, said: Callable[[], list[str]]) -> None:
    expected = MembershipInference(model, n_jobs=1)
    expected.train(dataset(MEMBERS), dataset(OTHERS), CONFIG[:1])
    attacker, twins = MembershipInference(model, n_jobs=1), draw(30, 0, 9)
    attacker.train(dataset(joined(MEMBERS, twins)), dataset(joined(OTHERS, twins)), CONFIG[:1])
    assert attacker.attackers[0].model.n_features_in_ == 1 + CLASSES
    others = draw(40, 0, 10)
    both = [dataset(joined(side, others)) for side in (NEW_MEMBERS, NEW_OTHERS)]
    found = attacker.eval(*both, ["accuracy"])[0]["accuracy"]
    clean = expected.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), ["accuracy"])[0]["accuracy"]
    assert found == pytest.approx(clean, abs=0.01)
    assert said() == [
        "train: 60 samples have an input that is on both sides, and are left out",
        "eval: 80 samples have an input that is on both sides: left out",
    ]


@pytest.mark.parametrize("batch", [8, None])
def test_parts_of_a_split_have_no_sample_in_common(
    model: Model, batch: int | None, said: Callable[[], list[str]]
) -> None:
    """MindSpore draws the parts anew each time that one is read: see the first assertion."""
    members, others = (dataset(arrays, batch=batch).split([0.8, 0.2]) for arrays in (MEMBERS, OTHERS))

    def read(part: Any) -> set[bytes]:
        rows = part.create_dict_iterator(num_epochs=1, output_numpy=True)
        return {image.tobytes() for row in rows for image in row["image"].reshape(-1, 1, 2, 2)}

    assert read(members[0]) & read(members[1])
    state, numpy_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    attacker = MembershipInference(model, n_jobs=1)
    attacker.train(members[0], others[0], CONFIG[:1])
    attacker.eval(members[1], others[1], ["accuracy"])
    assert said() == []
    assert ds.config.get_seed() == 5489
    assert random.getstate() == state
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert read(members[0]) & read(members[1])


def test_a_seed_of_the_users_stays(trained: MembershipInference) -> None:
    ds.config.set_seed(77)
    try:
        trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), ["accuracy"])
        assert ds.config.get_seed() == 77
    finally:
        ds.config.set_seed(5489)


def test_random_operations_are_named(model: Model, said: Callable[[], list[str]]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    made = ds.NumpySlicesDataset({"image": images, "label": np.arange(40) % CLASSES}, shuffle=False)
    made = made.map([vision.RandomHorizontalFlip(), vision.HWC2CHW()], "image").batch(8)
    assert random_operations(made) == ["RandomHorizontalFlip"]
    assert random_operations(dataset(MEMBERS)) == []
    attacker = MembershipInference(a_model(width=48), n_jobs=1)
    attacker.train(made, dataset((np.random.default_rng(1).normal(size=(40, 3, 4, 4)), np.zeros(40, int))), CONFIG[:1])
    assert any(line.startswith("dataset_train: RandomHorizontalFlip may give another input") for line in said())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_jobs", "kind", "line"), [
    (0, ValueError, "n_jobs: must be -1 or a positive integer, got 0"),
    (-2, ValueError, "n_jobs: must be -1 or a positive integer, got -2"),
    (1.5, TypeError, "n_jobs: must be an integer, got float"),
    ("2", TypeError, "n_jobs: must be an integer, got str"),
    (True, TypeError, "n_jobs: must be an integer, got bool"),
])  # fmt: skip
def test_n_jobs_is_checked(model: Model, n_jobs: Any, kind: type[Exception], line: str) -> None:
    with pytest.raises(kind, match=f"^{line}$"):
        MembershipInference(model, n_jobs=n_jobs)


def test_the_model_is_checked() -> None:
    with pytest.raises(TypeError, match=r"^model: must be a mindspore.train.Model, got Dense$"):
        MembershipInference(nn.Dense(2, 2))


@pytest.mark.parametrize(("config", "line"), [
    ([], r"attack_config: must have at least one method, got \[\]"),
    ([3], r"attack_config\[0\]: must be a mapping with method and params, got int"),
    ([{"method": "lr"}], r"attack_config\[0\]: must be a mapping with method and params, got keys method"),
    ([CONFIG[0], {"method": "svm", "params": {}}], r"attack_config\[1\]: method must be one of .*, got 'svm'"),
    ([{"method": 3, "params": {}}], r"attack_config\[0\]: method must be one of knn, lr, mlp, rf, got 3"),
    ([{"method": "lr", "params": [1]}], r"attack_config\[0\]: params must be a mapping, got list"),
    ([{"method": "lr", "params": {"C": 1.0}}], r"attack_config\[0\].params.C: must be a list"),
    ([{"method": "lr", "params": {"C": [-1.0]}}], r"attack_config\[0\].params.C: must be a float in the range"),
    ([{"method": "lr", "params": {"c": [1.0]}}], r"attack_config\[0\].params.c: is unknown; valid parameters: C"),
    ([{"method": "rf", "params": {"n_jobs": [1]}}], r"attack_config\[0\].params.n_jobs: is set by the engine"),
    ([{"method": "knn", "params": {"n_neighbors": [9999]}}], "attack.methods: knn: params.n_neighbors must be at most"),
])  # fmt: skip
def test_the_attack_config_is_checked(model: Model, config: Any, line: str) -> None:
    with pytest.raises(InputError, match=f"^train: {line}") as refused:
        MembershipInference(model, n_jobs=1).train(dataset(MEMBERS), dataset(OTHERS), config)
    assert len(refused.value.problems) == 1


def test_kinds_of_arguments_are_checked(trained: MembershipInference) -> None:
    data = dataset(MEMBERS)
    rows = dataset(OTHERS).create_dict_iterator(num_epochs=1)
    for call, line in (
        (lambda: trained.train([1], data, CONFIG), "dataset_train: must be a mindspore.dataset.Dataset, got list"),
        (lambda: trained.train(data, None, CONFIG), "dataset_test: must be a mindspore.dataset.Dataset, got NoneType"),
        (lambda: trained.train(data, rows, CONFIG), "dataset_test: .* got DictIterator"),
        (lambda: trained.train(data, data, CONFIG[0]), "attack_config: must be a list or a tuple, got dict"),
        (lambda: trained.eval(data, data, "accuracy"), "metrics: must be a list or a tuple, got str"),
    ):
        with pytest.raises(TypeError, match=f"^{line}$"):
            call()


@pytest.mark.parametrize(("metrics", "line"), [
    (["auc"], "metrics: must be of precision, accuracy, recall, got 'auc'"),
    ([], "metrics: must name at least one of precision, accuracy, recall"),
    ([["recall"]], "metrics: must be of precision, accuracy, recall, got"),
])  # fmt: skip
def test_metrics_are_checked(trained: MembershipInference, metrics: Any, line: str) -> None:
    with pytest.raises(InputError, match=f"^eval: {line}"):
        trained.eval(dataset(NEW_MEMBERS), dataset(NEW_OTHERS), metrics)


class Breaks(Rows):
    """Fails at a sample."""

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.int32]:
        if i == 70:
            raise KeyError("no such sample")
        return super().__getitem__(i)


def with_label(label: Any) -> Any:
    return dataset((OTHERS[0], np.asarray(label)))


@pytest.mark.parametrize(("make", "line"), [
    (lambda: dataset(OTHERS, names=("data", "target")), "must have columns image and label .*, got data, target"),
    (lambda: with_label(np.where(np.arange(N) == 99, CLASSES, 0)), r"labels: must be in 0..3, got 4 at sample 99"),
    (lambda: with_label(np.full(N, -1)), r"labels: must be in 0..3, got -1 at sample 0"),
    (lambda: dataset(OTHERS).repeat(), "must end, got repeat without a number"),
    (lambda: with_label(np.zeros(N)), r"label must be an integer for each sample, got float64 \(64,\)"),
    (lambda: with_label(np.eye(CLASSES, dtype=int)[OTHERS[1]]), r"label must be an integer .*, got int64 \(64, 4\)"),
    (lambda: dataset((np.full((N, 4), np.nan), OTHERS[1])), "logits: must be finite, got NaN or infinity at sample 0"),
    (lambda: ds.GeneratorDataset(Breaks(OTHERS), ["image", "label"], shuffle=False), "must be a data set that can"),
    (lambda: ds.NumpySlicesDataset({"image": [["a"]] * 9, "label": range(9)}), "image must be numbers, got <U"),
])  # fmt: skip
def test_data_sets_are_checked(model: Model, make: Callable[[], Any], line: str) -> None:
    with pytest.raises(InputError, match=f"^train: dataset_test: {line}") as refused:
        MembershipInference(model, n_jobs=1).train(dataset(MEMBERS), make(), CONFIG[:1])
    assert len(refused.value.problems) == 1


def test_a_network_that_takes_other_inputs_is_named() -> None:
    with pytest.raises(InputError, match=r"^train: model: must take ") as refused:
        MembershipInference(a_model(width=9), n_jobs=1).train(dataset(MEMBERS), dataset(OTHERS), CONFIG[:1])
    assert len(refused.value.problems) == 1


def test_eval_needs_train_and_something_new(model: Model, trained: MembershipInference) -> None:
    with pytest.raises(InputError, match=r"^eval: train must be called before$"):
        MembershipInference(model).eval(dataset(MEMBERS), dataset(OTHERS), METRICS)
    rule = "eval: must have members and non-members that train has not seen, got 0 members and 500 non-members"
    with pytest.raises(InputError, match=f"^{re.escape(rule)}$"):
        trained.eval(dataset(MEMBERS), dataset(NEW_OTHERS), METRICS)


def test_the_manuals_example_runs(model: Model, capsys: pytest.CaptureFixture) -> None:
    names: dict[str, Any] = {"model": model, "np": np}
    for name, arrays in {
        "train_train": MEMBERS, "train_test": OTHERS, "eval_train": NEW_MEMBERS, "eval_test": NEW_OTHERS,
    }.items():  # fmt: skip
        names[name] = dataset(arrays)
    (code,) = (code for code in code_blocks(REPO / "docs" / "python.md") if "MembershipInference" in code)
    exec(code, names)
    assert [line[:12] for line in capsys.readouterr().out.splitlines()] == ["Method: lr, ", "Method: knn,"]


def test_it_comes_with_the_package() -> None:
    assert mia_batch.MembershipInference is MembershipInference


def test_the_same_samples_on_both_sides_are_said(model: Model, trained: MembershipInference) -> None:
    rule = "dataset_test: must give other samples than dataset_train, got the same inputs"
    with pytest.raises(InputError, match=f"^train: {rule}$"):
        MembershipInference(model, n_jobs=1).train(dataset(MEMBERS), dataset(MEMBERS), CONFIG[:1])
    with pytest.raises(InputError, match=f"^eval: {rule}$"):
        trained.eval(dataset(NEW_MEMBERS), dataset(NEW_MEMBERS), METRICS)


def test_numpys_integers_are_numbers_of_cores(model: Model) -> None:
    MembershipInference(model, n_jobs=np.int64(1))


def test_advice_names_no_key_of_a_configuration() -> None:
    from mia_batch.network.membership import _without_keys

    said = "model: must give one tensor of logits, got a tuple of 2; write model.index: N to choose one"
    assert _without_keys(said) == (
        "model: must give one tensor of logits, got a tuple of 2; wrap the network in one that gives the logits alone"
    )
    assert _without_keys("model: must take images") == "model: must take images"
