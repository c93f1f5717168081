"""MindSpore edge: device placement, checkpoint, preprocessing, batched forward."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.dataset import vision

from mia_batch import data as samples
from mia_batch.checkpoint import CRC_BYTES, CRC_MARK, check_whole
from mia_batch.config import DataConfig, ModelConfig
from mia_batch.errors import InputError
from mia_batch.factory import one_line
from mia_batch.models.factory import build_network

log = logging.getLogger(__name__)

# --- device placement ------------------------------------------------------------------------------------------------

# What a launcher or an administrator restricts the cards with, the one nearest to the process first.
VISIBLE_CARDS = {"GPU": ("CUDA_VISIBLE_DEVICES",), "Ascend": ("ASCEND_RT_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES")}


@dataclass(frozen=True)
class Placement:
    """Where a rank computes.

    Attributes:
        device_target: "Ascend", "GPU" or "CPU".
        device_id: the card, counted among those that the process sees; 0 on CPU.
    """

    device_target: str
    device_id: int = 0


def visible_cards(device_target: str, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The cards that the environment restricts a process to, by name; None where it does not restrict."""
    for variable in VISIBLE_CARDS.get(device_target, ()):
        if variable in environ:
            return _card_list(environ[variable])
    return None


def _card_list(text: str) -> tuple[str, ...]:
    """Cards of "0,1", "0-3,6" (Ascend's ranges) or "GPU-uuid,..."; -1, none and NoDevFiles end the list, as in CUDA."""
    cards: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        if word in ("", "-1", "none", "void", "NoDevFiles"):
            break
        span = re.fullmatch(r"(\d+)-(\d+)", word)
        cards += [str(card) for card in range(int(span[1]), int(span[2]) + 1)] if span else [word]
    return tuple(cards)


def place(
    device: str,
    local_rank: int,
    local_size: int,
    environ: Mapping[str, str],
    *,
    reported: str | None = None,
    n_cards: int | None = None,
    peers: Sequence[tuple[str, ...] | None] | None = None,
) -> Placement:
    """Choose the device of a rank: one card each, by local rank.

    Args:
        device: as in `extract.device`.
        local_rank: number of the rank on its node.
        local_size: ranks on the node.
        environ: the rank's environment, for the variables that restrict the visible cards.
        reported: the device kind that MindSpore reports, for "auto"; None asks it.
        n_cards: cards in the node, where no variable says; None asks MindSpore.
        peers: what `visible_cards` gave on each of the node's ranks, by local rank; None where all see the same.

    Raises:
        InputError: more ranks than cards.
    """
    target = (reported or reported_device()) if device == "auto" else device
    if target == "CPU":
        return Placement("CPU")
    mine = visible_cards(target, environ)
    sharing = list(range(local_size))
    if mine is not None and peers is not None:
        sharing = [rank for rank in range(local_size) if peers[rank] == mine]
    elif mine is not None and len(mine) == 1 and _one_card_per_task(local_size, environ):
        sharing = [local_rank]  # each task sees its own card, under a number that may be the same for all
    cards = len(mine) if mine is not None else n_cards if n_cards is not None else count_cards(target)
    if cards is not None and len(sharing) > cards:
        seen = f"{_names(target)}={','.join(mine)}" if mine is not None else f"{target} cards in the node"
        raise InputError(
            f"extract.device: {target} needs a card for each rank, got {len(sharing)} ranks on this node "
            f"and {cards} cards ({seen}); start at most {cards} ranks a node"
        )
    return Placement(target, sharing.index(local_rank))


def _names(target: str) -> str:
    return " or ".join(VISIBLE_CARDS[target])


def _one_card_per_task(local_size: int, environ: Mapping[str, str]) -> bool:
    """Whether Slurm has bound each task to cards of its own."""
    if any(environ.get(name) for name in ("SLURM_GPUS_PER_TASK", "SLURM_NTASKS_PER_GPU")):
        return True
    if re.search(r"single|map|mask|per_task", environ.get("SLURM_GPU_BIND", environ.get("SLURM_TRES_BIND", ""))):
        return True
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    return on_node.isdigit() and int(on_node) >= local_size > 1


def reported_device() -> str:
    """The device kind that this MindSpore uses by itself: "Ascend", "GPU" or "CPU"."""
    return str(ms.get_context("device_target"))


def count_cards(target: str) -> int | None:
    """Cards of a kind that MindSpore sees in the node, None where it cannot tell."""
    try:
        return int(ms.hal.device_count(target)) if ms.hal.is_available(target) else 0
    except (AttributeError, RuntimeError, ValueError):
        return None


def set_up(placement: Placement) -> None:
    """Use this device, in GRAPH mode.

    Raises:
        InputError: MindSpore cannot use the device.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    in_use = Placement(reported_device(), int(ms.get_context("device_id")))
    try:
        if in_use == placement:
            pass  # once it computes MindSpore takes no choice, not even the same again
        elif hasattr(ms, "set_device"):
            ms.set_device(placement.device_target, placement.device_id)
        else:  # MindSpore before 2.5, as older CANN needs
            ms.set_context(device_target=placement.device_target, device_id=placement.device_id)
    except (RuntimeError, ValueError, TypeError) as error:
        rule = f"MindSpore {ms.__version__} must be able to use {placement.device_target}:{placement.device_id}"
        raise InputError(f"extract.device: {rule}, got {one_line(error)}") from error
    if placement.device_target == "CPU" and slow_on_cpu(ms.__version__):
        log.warning(
            "MindSpore %s convolves on CPU through a reference kernel, some 100 times slower than 2.8; "
            "install mindspore>=2.7,<2.9",
            ms.__version__,
        )


def slow_on_cpu(version: str) -> bool:
    """Whether this MindSpore's convolution on CPU is the reference kernel."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= (2, 9)


# --- checkpoint ------------------------------------------------------------------------------------------------------

# Prefixes that MindSpore's optimizers give to their copies of a network's parameters, and their own parameters.
OPTIMIZER_COPIES = {
    "accum", "accum_update", "adam_m", "adam_v", "exp_avg", "lamb_m", "lamb_v", "linear", "mean_grad",
    "mean_square", "moment", "moment1", "moment2", "moments", "prev", "stat", "step_size", "vhat",
}
OPTIMIZER_OWN = {
    "beta1_power", "beta2_power", "current_iterator_step", "epoch_num", "fake_lr", "global_step", "growth_tracker",
    "last_overflow_iterator_step", "learning_rate", "loss_scale", "momentum", "scale_sense", "step_num",
    "weight_decay",
}
SHOWN = 5  # names in a message, before a count stands for the rest


def is_optimizer_state(name: str, network_names: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's entry is an optimizer's: one of its own, or its copy of a parameter of the network."""
    prefix, _, rest = name.partition(".")
    return name in OPTIMIZER_OWN or (prefix in OPTIMIZER_COPIES and rest in network_names)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Entries of a checkpoint: parameters, and plain values that training has added.

    Raises:
        InputError: not a MindSpore checkpoint, or a damaged one.
    """
    check_whole(path)
    size = path.stat().st_size
    try:
        entries = ms.load_checkpoint(str(path), format=path.suffix.removeprefix("."), crc_check=_has_crc(path))
    except Exception as error:
        got = f"{size} bytes that are not: {one_line(error)}"
        raise InputError(f"{path}: model.checkpoint: must be a complete MindSpore checkpoint, got {got}") from error
    held = sum(entry.nbytes for entry in entries.values() if isinstance(entry, Parameter))
    if held > size:  # MindSpore fills what is missing of a tensor with zeros
        raise InputError(f"{path}: model.checkpoint: must hold its {held} bytes of parameters, got {size} bytes in all")
    return dict(entries)


def _has_crc(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - CRC_BYTES))
        return file.read(len(CRC_MARK)) == CRC_MARK


def load_network(model: ModelConfig, image_size: Sequence[int]) -> nn.Cell:
    """Build the network of `model` with the weights of its checkpoint, for inference.

    Raises:
        InputError: the factory or the checkpoint is bad, or they do not match to the last parameter.
    """
    entries = read_checkpoint(model.checkpoint)
    network = build_network(model, image_size)
    load_parameters(network, entries, model.checkpoint)
    network.set_train(False)
    return network


def load_parameters(network: nn.Cell, entries: Mapping[str, Any], path: Path) -> None:
    """Put a checkpoint's entries into the network; optimizer state is ignored, all else must match.

    Raises:
        InputError: with a line each for missing, unexpected, wrongly shaped and not finite parameters.
    """
    wanted = network.parameters_dict()
    given = {name: entry for name, entry in entries.items() if isinstance(entry, Parameter)}
    both = [name for name in wanted if name in given]
    kinds = {
        "the network's parameters, missing": [name for name in wanted if name not in given],
        "no other parameters, unexpected": [
            name for name in given if name not in wanted and not is_optimizer_state(name, wanted)
        ],
        "the network's shapes": [
            f"{name} {_shape(given[name])} for {_shape(wanted[name])}"
            for name in both
            if given[name].shape != wanted[name].shape
        ],
        "finite numbers": [name for name in both if not _finite(given[name])],
    }
    problems = [f"{path}: model.checkpoint: must have {rule}: {_some(names)}" for rule, names in kinds.items() if names]
    if problems:
        raise InputError(problems)
    matched = {name: _as_type(given[name], wanted[name].dtype) for name in both}
    unloaded, _ = ms.load_param_into_net(network, matched, strict_load=True)
    if unloaded:
        raise RuntimeError(f"load_param_into_net left out {unloaded}")


def _shape(parameter: Parameter) -> str:
    return "x".join(map(str, parameter.shape)) or "scalar"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more ({len(names)} in all)" if rest > 0 else "")


def _finite(parameter: Parameter) -> bool:
    array = _as_type(parameter, ms.float32).asnumpy() if parameter.dtype == ms.bfloat16 else parameter.asnumpy()
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _as_type(parameter: Parameter, dtype: Any) -> Parameter:
    return parameter if parameter.dtype == dtype else Parameter(parameter.astype(dtype), name=parameter.name)


# --- preprocessing ---------------------------------------------------------------------------------------------------

CROP_PADDING = 4  # pixels, as in the tutorial
CACHED_PIXELS = 1 << 16  # of images looked up together: their three channels are read one after the other


class Preprocess:
    """Images to the network's input: bilinear resize, pixels / 255, (x - mean) / std per channel, channels first.

    MindSpore's transforms do the work. What follows the resize maps each byte on its own, so for bytes they run once,
    over all 256 values, and images go through the table they leave: the same bits, in a seventh of the time at 32x32.

    Args:
        image_size: (height, width) of the output, in pixels.
        mean: per channel, of pixels / 255.
        std: per channel, likewise.
    """

    def __init__(self, image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
        self.image_size = tuple(image_size)
        self._resize = vision.Resize(self.image_size, vision.Inter.BILINEAR)
        self._pixelwise = [vision.Rescale(1.0 / 255.0, 0.0), vision.Normalize(mean, std), vision.HWC2CHW()]
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
        self._table = self._transform(ramp)[:, :, 0]

    def __call__(self, images: samples.Images) -> np.ndarray:
        """n images (H, W, 3) of bytes, or floats from 0 to 255, to float32 (n, 3, height, width)."""
        batch = np.empty((len(images), 3, *self.image_size), np.float32)
        if isinstance(images, np.ndarray) and images.shape[1:3] == self.image_size and images.dtype == np.uint8:
            step = max(1, CACHED_PIXELS // (self.image_size[0] * self.image_size[1]))
            for first in range(0, len(images), step):
                self._look_up(images[first : first + step], batch[first : first + step])
            return batch
        for resized, row in zip(self.resize(images), batch, strict=True):
            if resized.dtype == np.uint8:
                self._look_up(resized[None], row[None])
            else:
                row[:] = self._transform(resized)
        return batch

    def resize(self, images: samples.Images) -> Iterator[np.ndarray]:
        """Each image at the output's size, still (height, width, 3)."""
        for image in images:
            fits = image.shape[:2] == self.image_size
            yield image if fits else np.asarray(self._resize(np.ascontiguousarray(image)))

    def _look_up(self, images: np.ndarray, batch: np.ndarray) -> None:
        for channel in range(3):
            np.take(self._table[channel], images[..., channel], out=batch[:, channel], mode="clip")

    def _transform(self, image: np.ndarray) -> np.ndarray:
        for transform in self._pixelwise:
            image = transform(image)
        return np.asarray(image)


def augment(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random crop after padding by 4 black pixels, then a horizontal flip every other time; the size stays."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0)))
    top, left, flip = generator.integers((2 * CROP_PADDING + 1, 2 * CROP_PADDING + 1, 2))
    crop = padded[top : top + height, left : left + width]
    return crop[:, ::-1] if flip else crop


def augmented(images: samples.Images, split: np.ndarray, index: np.ndarray, *seed: int) -> list[np.ndarray]:
    """Each image augmented by a stream of its own, so that neither ranks nor batches change the outcome."""
    streams = [(*seed, zlib.crc32(str(name).encode()), int(i)) for name, i in zip(split, index, strict=True)]
    return [augment(image, np.random.default_rng(stream)) for image, stream in zip(images, streams, strict=True)]


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


Reader = Callable[[np.ndarray], samples.Images]


def reader(
    data: DataConfig, selection: samples.Selection, *, source: samples.Source | None = None, seed: int = 1
) -> Reader:
    """What reads the images of given rows from their source, members augmented if `data` says so.

    Args:
        data: where samples are.
        selection: what row numbers mean.
        source: of `data`, if it is open already.
        seed: of `augment_members`.
    """
    opened = source or samples.open_source(data)

    def read(rows: np.ndarray) -> samples.Images:
        images = read_images(opened, selection, rows)
        return _augment_members(images, selection, rows, seed) if data.augment_members else images

    return read


def batches(
    data: DataConfig, selection: samples.Selection, rows: np.ndarray, batch_size: int, *, read: Reader | None = None
) -> Iterator[Batch]:
    """Preprocessed samples, read only when their batch is asked for.

    Args:
        data: where samples are, and the preprocessing.
        selection: what row numbers mean.
        rows: row numbers wanted, ascending.
        batch_size: rows of a batch at most. A batch never crosses a multiple of it, as `Predictor` wants.
        read: gives the images of rows; default: from the source.

    Yields:
        rows int64 (n,), images float32 (n, 3, height, width), labels int32 (n,), in the order of `rows`.

    Raises:
        InputError: a sample that cannot be read or is no image.
    """
    read = read or reader(data, selection)
    preprocess = Preprocess(data.image_size, data.mean, data.std)
    rows = np.asarray(rows, dtype=np.int64)
    cuts = np.flatnonzero(np.diff(rows // batch_size)) + 1
    for part in np.split(rows, cuts) if len(rows) else ():
        yield part, preprocess(read(part)), selection.label[part]


def read_images(source: samples.Source, selection: samples.Selection, rows: np.ndarray) -> samples.Images:
    """Images of the rows, in their order."""
    splits = selection.split[rows]
    if (splits == splits[0]).all():
        return source.images(str(splits[0]), selection.sample_index[rows])
    found: dict[int, np.ndarray] = {}
    for split in np.unique(splits):
        chosen = np.flatnonzero(splits == split)
        images = source.images(str(split), selection.sample_index[rows[chosen]])
        found |= dict(zip(chosen.tolist(), images, strict=True))
    return [found[position] for position in range(len(rows))]


def _augment_members(
    images: samples.Images, selection: samples.Selection, rows: np.ndarray, seed: int
) -> list[np.ndarray]:
    changed = augmented(images, selection.split[rows], selection.sample_index[rows], seed)
    member = selection.member[rows] == 1
    return [new if inside else old for new, old, inside in zip(changed, images, member, strict=True)]


# --- forward pass ----------------------------------------------------------------------------------------------------


class Predictor:
    """A network that is run at one batch size, so that it compiles once and every row gets the same bits always.

    The last bits of a row depend on its place in the batch (the edges of a matrix product are computed by another
    kernel) but not on the other rows. So a row of the data has one place: its number modulo the batch size.

    Args:
        network: takes float32 (batch_size, 3, height, width), gives logits (batch_size, n_classes).
        batch_size: at least 1.
    """

    def __init__(self, network: nn.Cell, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.network = network.set_train(False)
        self.batch_size = batch_size
        self._ran = False

    def logits(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Run the network.

        Args:
            images: float32 (n, 3, height, width), n <= batch_size.
            rows: numbers of the rows, (n,), distinct modulo the batch size; None for 0 to n - 1.

        Returns:
            float32 (n, n_classes).

        Raises:
            InputError: the network does not take such images, or gives no logits.
        """
        if len(images) > self.batch_size:
            raise ValueError(f"images must be at most {self.batch_size}, got {len(images)}")
        places = np.arange(len(images)) if rows is None else np.asarray(rows) % self.batch_size
        if len(images) < self.batch_size or rows is not None:
            padded = np.zeros((self.batch_size, *images.shape[1:]), np.float32)
            padded[places] = images
            images = padded
        return self._run(images)[places]

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            output = self.network(Tensor(images, ms.float32))
        except (ValueError, TypeError, RuntimeError) as error:
            if self._ran:  # not the network's fault: it has taken such images before
                raise
            raise InputError(f"model: must take images of shape {images.shape}, got {one_line(error)}") from error
        if not isinstance(output, Tensor):
            raise InputError(f"model: must give one tensor of logits, got {type(output).__name__}")
        if output.ndim != 2 or output.shape[0] != len(images) or output.shape[1] < 2 or not output.is_floating_point():
            rule = f"must give floating-point logits of shape ({len(images)}, 2 or more)"
            raise InputError(f"model: {rule}, got {output.dtype} {tuple(output.shape)}")
        self._ran = True
        return output.astype(ms.float32).asnumpy()

