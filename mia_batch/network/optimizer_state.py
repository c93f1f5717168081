"""What MindSpore 2.x writes into a checkpoint beside weights: state of optimizers and of the cells that train.

An optimizer names its copy of a parameter after it: `moments.dense.weight`. That alone could be a weight of another
network, with a module `moments`. So a copy counts only if all those are there that one optimizer keeps together, with
the shapes that they have; a number only under its own name; and what `append_dict` has added only where it must stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from mia_batch.network.checkpoint_entry import Entry, Stated

Shape = tuple[int, ...]
# What each optimizer, or cell that trains, keeps of a parameter: what stands before the parameter's name.
KEPT_TOGETHER = (
    {"moments."},  # Momentum, LARS, thor
    {"moments.", "linear."},  # FTRL
    {"accum."},  # Adagrad, ProximalAdagrad
    {"accum.", "accum_update."},  # Adadelta
    {"accum.", "stat."},  # SGD
    {"adam_m.", "adam_v."},  # AdamWeightDecay
    {"lamb_m.", "lamb_v."},  # Lamb
    {"moment1.", "moment2."},  # Adam, AdamOffload, LazyAdam, AdaMax
    {"moment1.", "moment2.", "vhat."},  # Adam with amsgrad
    {"mean_square.", "moment."},  # RMSProp
    {"mean_grad.", "mean_square.", "moment."},  # RMSProp, centred
    {"prev.", "step_size."},  # Rprop
    {"mu_", "eta_", "ax_."},  # ASGD
    {"exp_avg_sq_row_", "exp_avg_sq_col_", "exp_avg_sq_"},  # AdaFactor
    {"exp_avg_sq_row_", "exp_avg_sq_col_", "exp_avg_sq_", "exp_avg."},
    {"exp_avg.", "exp_avg_sq."},  # Adam, AdamW, NAdam, RAdam of experimental and mint
    {"exp_avg.", "exp_avg_sq.", "max_exp_avg_sq."},
    {"exp_avg.", "exp_avg_sq.", "mu_product_"},
    {"exp_avg.", "exp_inf."},  # Adamax of experimental
    {"ax."},  # ASGD of experimental
    {"ax.", "mu_", "eta_"},
    {"momentum_buf."},  # SGD of mint
    {"accu_grads."}, {"grad_accumulation."},  # gradients over several steps
    {"weights_clone."}, {"delta_weight."},  # AdaSum
    {"ema."},  # a moving average
)
PREFIXES = frozenset().union(*KEPT_TOGETHER)
PREFIXES_WITHOUT_DOT = tuple(sorted(prefix for prefix in PREFIXES if not prefix.endswith(".")))
# Copies that have another shape than the parameter.
SHAPES: dict[str, Callable[[Shape], set[Shape]]] = {
    "mu_": lambda shape: {()}, "eta_": lambda shape: {()}, "mu_product_": lambda shape: {()},
    "exp_avg_sq_row_": lambda shape: {shape[:-1], (1,)},
    "exp_avg_sq_col_": lambda shape: {shape[:-2] + shape[-1:], (1,)},
    "exp_avg_sq_": lambda shape: {shape, (1,)},
    "exp_avg.": lambda shape: {shape, ()},
}
# One number each.
NUMBERS = frozenset(
    (
        "accumulation_step", "afactor_step", "beta1_power", "beta2_power", "cov_step", "current_iterator_step",
        "epoch_num", "fake_lr", "fake_param", "global_step", "graceful_exit", "graceful_init", "growth_tracker",
        "last_overflow_iterator_step", "loss_scale", "momentum", "scale_sense", "scale_value", "state_step", "step",
        "step_num", "step_t", "sync_tensor", "tft_g_one_flag", "weight_decay",
    )
)
# A rate, or the rates of all steps.
RATE = re.compile(r"(learning_rate\.\d+\.)?learning_rate(_group_\d+)?")
RANDOM_STATE = "random_op"  # a generator's, as ModelCheckpoint appends it
UNNAMED, UNNAMED_BESIDE = re.compile(r"Parameter(\$\d+)?"), "afactor_step"  # of AdaFactor without beta1
# Of thor: its own matrices, and those of its layers beside a layer's weight.
THOR = re.compile(r"matrix_[ag]_inv_\d+|matrix_max\d+")
THOR_LAYER = re.compile(r"(?P<layer>.*\.|)(matrix_[ag](_cov)?|[ag]_normalizer)")
THOR_WEIGHTS = ("weight", "embedding_table")
MAX_OPTIMIZERS = 8  # in one checkpoint, so that a hostile one costs no time
STEPS = ("global_step", "state_step", "step_t")  # every step counter shows where an optimizer's own entries are


class OptimizerState:
    """Tells the entries of one checkpoint that are no weights.

    Args:
        stated: the checkpoint.
        weights: shapes of the network's parameters, by the names that they have in the file and in the network.
    """

    def __init__(self, stated: Stated, weights: Mapping[str, Shape]) -> None:
        self.stated, self.weights = stated, weights
        self.entries = stated.entries
        around = {
            name.removesuffix(step)
            for name, entry in self.entries.items() if entry.is_one_number
            for step in STEPS if name.endswith(f".{step}")
        }
        self.paths = ["", *sorted(around, key=len)[:MAX_OPTIMIZERS]]
        self._rows = {name: row for row, name in enumerate(self.entries)}
        self._copies = {name for name, entry in self.entries.items() if self._is_copy(name, entry)}
        trained = [name for name in self.entries if name in weights or name in self._copies]
        self._last = self._rows[trained[-1]] if trained else len(self.entries)

    def has(self, name: str) -> bool:
        """Whether this entry is state of training."""
        entry = self.entries[name]
        return self._is_kept(name, entry) or self._is_appended(name)

    def _is_kept(self, name: str, entry: Entry) -> bool:
        inner = [name.removeprefix(path) for path in self.paths if name.startswith(path)]
        if any(_is_own(each, entry) for each in inner) or name in self._copies or self._is_thors(name):
            return True
        return UNNAMED.fullmatch(name) is not None and UNNAMED_BESIDE in self.entries and entry.is_one_number

    def _is_copy(self, name: str, entry: Entry) -> bool:
        return any(
            entry.dims in SHAPES.get(prefix, lambda shape: {shape})(self.weights[rest])
            and any(prefix in kept and self._are_there(path, kept, rest) for kept in KEPT_TOGETHER)
            for path, prefix, rest in self._readings(name)
        )

    def _readings(self, name: str) -> Iterator[tuple[str, str, str]]:
        """The ways to read a name as path, prefix and the name of a weight."""
        for path in self.paths:
            inner = name.removeprefix(path)
            if path + inner == name:
                for prefix in (*PREFIXES_WITHOUT_DOT, f"{inner.partition('.')[0]}."):
                    rest = inner.removeprefix(prefix)
                    if prefix in PREFIXES and rest != inner and rest in self.weights:
                        yield path, prefix, rest

    def _are_there(self, path: str, kept: set[str], rest: str) -> bool:
        return all(path + prefix + rest in self.entries for prefix in kept)

    def _is_thors(self, name: str) -> bool:
        layer = THOR_LAYER.fullmatch(name)
        return layer is not None and any(layer["layer"] + weight in self.weights for weight in THOR_WEIGHTS)

    def _is_appended(self, name: str) -> bool:
        """What `append_dict` adds: a number without a module before its name, behind all that was trained.

        A cell's own parameters come before those of the cells in it, so that a weight does not stand there, unless the
        network is one single cell. A .safetensors file keeps no order: there it must be a whole number or a bool.
        """
        entry = self.entries[name]
        if entry.dims != () or "." in name or not any("." in weight for weight in self.weights):
            return False
        return self._rows[name] > self._last if self.stated.ordered else entry.is_whole


def _is_own(name: str, entry: Entry) -> bool:
    if RATE.fullmatch(name):
        return len(entry.dims) <= 1
    return name == RANDOM_STATE or THOR.fullmatch(name) is not None or (name in NUMBERS and entry.is_one_number)
