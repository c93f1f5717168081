"""A user's own training, in MindSpore alone, which saves the weights in one of the ways that there are.

    python train.py --network spectrogram --source spectrograms --samples 400 --epochs 50 --save whole net.ckpt

`--save whole` saves the cell that trains: weights behind `network.`, Adam's state, epoch and loss. `half` saves weights
of float16 as safetensors, `torch` an .npz under the names that PyTorch has for them.
"""

import argparse

import data
import mindspore as ms
import model
import numpy as np
from mindspore import nn

TORCH = {".gamma": ".weight", ".beta": ".bias", ".embedding_table": ".weight"}


class WithLoss(nn.Cell):
    """The loss of a network, of its last step where it gives logits for each."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

    def construct(self, label, *inputs):
        logits = self.network(*inputs)
        return self.cross_entropy(logits[:, -1] if logits.ndim == 3 else logits, label)


def columns(samples):
    """What the network takes, stacked, and the labels."""
    inputs, labels = zip(*samples, strict=True)
    if isinstance(inputs[0], dict):
        return [np.stack([each[name] for each in inputs]) for name in inputs[0]], np.array(labels, np.int32)
    return [np.stack(inputs)], np.array(labels, np.int32)


def train(step, samples, *, epochs, batch_size, seed):
    """The last epoch's mean loss."""
    arrays, labels = columns(samples)
    rng, losses = np.random.default_rng(seed), []
    for _ in range(epochs):
        order, losses = rng.permutation(len(labels)), []
        for first in range(0, len(labels) - batch_size + 1, batch_size):
            rows = order[first : first + batch_size]
            losses.append(step(ms.Tensor(labels[rows]), *(ms.Tensor(array[rows]) for array in arrays)))
    return float(np.mean([loss.asnumpy() for loss in losses]))


def save(step, how, path, *, epoch, loss):
    """Write `path` in one of the ways."""
    weights = {p.name.removeprefix("network."): p for p in step.network.get_parameters()}
    if how == "whole":
        ms.save_checkpoint(step, path, append_dict={"epoch": epoch, "loss": loss, "converged": True})
    elif how == "half":
        halves = [{"name": name, "data": ms.Tensor(p.asnumpy(), ms.float16)} for name, p in weights.items()]
        ms.save_checkpoint(halves, path, format="safetensors")
    elif how == "torch":
        np.savez(path, **{_torch_name(name): p.asnumpy() for name, p in weights.items()})
    else:
        ms.save_checkpoint([{"name": name, "data": p} for name, p in weights.items()], path)


def _torch_name(name):
    for ours, theirs in TORCH.items():
        name = name.removesuffix(ours) + theirs if name.endswith(ours) else name
    return name


def main():
    """Train and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--wrong", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.003)
    parser.add_argument("--save", choices=("weights", "whole", "half", "torch"), default="weights")
    parser.add_argument("checkpoint")
    args = parser.parse_args()
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    ms.set_seed(1)
    options = {"dtype": "float32"} if args.save == "half" else {}
    with_loss = WithLoss(getattr(model, args.network)(data.CLASSES, **options))
    step = nn.TrainOneStepCell(with_loss, nn.Adam(with_loss.trainable_params(), args.rate))
    samples = getattr(data, args.source)("train", args.samples, args.wrong)
    loss = train(step, samples, epochs=args.epochs, batch_size=32, seed=1)
    save(step, args.save, args.checkpoint, epoch=args.epochs, loss=loss)


if __name__ == "__main__":
    main()
