"""Networks of many kinds, as users have them: what `tests/bench/networks.py` trains and audits."""

import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import Normal


class Block(nn.Cell):
    """Two convolutions with batch norm beside what goes in."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.SequentialCell(
            nn.Conv2d(channels, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def construct(self, x):
        return ops.relu(x + self.inner(x))


def residual(num_classes, channels=3, width=16):
    """Images (n, 3, 12, 12) to logits."""
    stem = nn.SequentialCell(nn.Conv2d(channels, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
    return nn.SequentialCell(stem, Block(width), Block(width), nn.Flatten(), nn.Dense(36 * width, num_classes))


def spectrogram(num_classes, width=16):
    """Spectrograms (n, 1, 16, 24) to logits."""
    return nn.SequentialCell(
        nn.Conv2d(1, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Dense(24 * width, num_classes),
    )  # fmt: skip


class TwoEnds(nn.Cell):
    """Convolutions, and of images of `size` both the features and the logits, as a tuple or as a dictionary."""

    def __init__(self, channels, size, num_classes, width, as_dict):
        super().__init__()
        self.body = nn.SequentialCell(
            nn.Conv2d(channels, width, 3, stride=2), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Dense((size // 2) ** 2 * width, num_classes)
        self.as_dict = as_dict

    def construct(self, x):
        features = self.body(x)
        logits = self.head(features)
        if self.as_dict:
            return {"features": features, "logits": logits}
        return features, logits


def four_channels(num_classes, width=16):
    """Images (n, 4, 10, 10) to (features, logits)."""
    return TwoEnds(4, 10, num_classes, width, as_dict=False)


def thirteen_channels(num_classes, channels=13, width=16):
    """Images (n, 13, 8, 8) to {"features": ..., "logits": ...}."""
    return TwoEnds(channels, 8, num_classes, width, as_dict=True)


class Recurrent(nn.Cell):
    """Token ids (n, length) and a mask (n, length) to logits, by the mean of a GRU's steps that the mask leaves."""

    def __init__(self, tokens, num_classes, width):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width, embedding_table=Normal(0.5))
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Dense(width, num_classes)

    def construct(self, ids, mask):
        there = mask.astype(ms.float32).expand_dims(-1)
        steps, _ = self.gru(self.embedding(ids))
        return self.head((steps * there).sum(axis=1) / there.sum(axis=1))


def recurrent(num_classes, tokens=201, width=32):
    """`tokens` counts the padding's id, 0."""
    return Recurrent(tokens, num_classes, width)


class Attention(nn.Cell):
    """Token ids (n, length) and a mask (n, length) to logits, by two heads of attention over what the mask leaves."""

    def __init__(self, tokens, num_classes, width):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width, embedding_table=Normal(0.5))
        self.norm = nn.LayerNorm((width,))
        self.query, self.key, self.value = (nn.Dense(width, width) for _ in range(3))
        self.head = nn.SequentialCell(nn.Dense(width, width), nn.GELU(), nn.Dense(width, num_classes))
        self.width = width

    def heads(self, x):
        """(n, length, width) to (n, 2, length, width / 2)."""
        return x.reshape((x.shape[0], x.shape[1], 2, self.width // 2)).transpose((0, 2, 1, 3))

    def construct(self, ids, mask):
        there = mask.astype(ms.float32)
        x = self.embedding(ids)
        query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        scores = ops.matmul(query, key.swapaxes(2, 3)) * (self.width // 2) ** -0.5
        seen = ops.softmax(scores + (there.expand_dims(1).expand_dims(1) - 1) * 1e4, axis=-1)
        mixed = ops.matmul(seen, value).transpose((0, 2, 1, 3)).reshape(x.shape)
        x = self.norm(x + mixed) * there.expand_dims(-1)
        return self.head(x.sum(axis=1) / there.sum(axis=1, keepdims=True))


def attention(num_classes, tokens=201, width=32):
    """`tokens` counts the padding's id, 0."""
    return Attention(tokens, num_classes, width)


def layers(columns, width, num_classes):
    """Three dense ones."""
    return [nn.Dense(columns, width), nn.ReLU(), nn.Dense(width, width), nn.ReLU(), nn.Dense(width, num_classes)]


def one_logit(width=128):
    """Vectors (n, 20) to one logit each, (n, 1)."""
    return nn.SequentialCell(*layers(20, width, 1))


class OneProbability(nn.Cell):
    """Vectors (n, 20) to one probability each, (n,)."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.SequentialCell(*layers(20, width, 1))

    def construct(self, x):
        return ops.sigmoid(self.body(x)).reshape((-1,))


def one_probability(width=128):
    """As its cell."""
    return OneProbability(width)


class Sequence(nn.Cell):
    """Series (n, 12, 6) to logits of each step, (n, 12, num_classes)."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.lstm = nn.LSTM(6, width, batch_first=True)
        self.head = nn.Dense(width, num_classes)

    def construct(self, x):
        steps, _ = self.lstm(x)
        return self.head(steps)


def sequence(num_classes, width=64):
    """As its cell."""
    return Sequence(num_classes, width)


def half(num_classes, dtype="float16", width=128):
    """Vectors (n, 20) to logits; all parameters are of float16, to be audited, or of float32, to be trained."""
    network = nn.SequentialCell(*layers(20, width, num_classes))
    for parameter in network.get_parameters():
        parameter.set_dtype(getattr(ms, dtype))
    return network


def mixed(num_classes, width=128):
    """Vectors (n, 20) to probabilities (n, num_classes), computed in float16 with parameters of float32."""
    return nn.SequentialCell(*layers(20, width, num_classes), nn.Softmax()).to_float(ms.float16)


class TwoInputs(nn.Cell):
    """Numbers (n, 16) and a category (n,) to logits."""

    def __init__(self, num_classes, categories, width):
        super().__init__()
        self.embedding = nn.Embedding(categories, 8)
        self.norm = nn.LayerNorm((24,), epsilon=1e-5)
        self.layers = nn.SequentialCell(*layers(24, width, num_classes))

    def construct(self, numbers, category):
        return self.layers(self.norm(ops.concat((numbers, self.embedding(category)), axis=1)))


def two_inputs(num_classes, categories=10, width=128):
    """As its cell."""
    return TwoInputs(num_classes, categories, width)
