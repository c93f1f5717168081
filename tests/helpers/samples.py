"""Samples of a configuration, as the stages open them."""

from mia_batch.data.selection import Selection, select
from mia_batch.data.sources import Source, open_source
from mia_batch.network.datasets import open_dataset
from mia_batch.settings.schema import DataConfig


def open_samples(data: DataConfig) -> Source:
    """The source, MindSpore datasets included."""
    return open_source(data, open_dataset)


def select_all(data: DataConfig) -> Selection:
    """Members and non-members."""
    return select(data, open_samples(data))
