"""What the page draws beside the summary: curves and distributions, never a row of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mia_batch.metrics.distributions import Histogram
from mia_batch.metrics.ranking import RocBand


@dataclass(frozen=True)
class AttackEvidence:
    """Of an attack that has scores, on the rows that it was not fitted on."""

    roc: RocBand
    scores: Histogram


@dataclass(frozen=True)
class Curve:
    """A figure over a number, such as a training's step.

    Attributes:
        title: of the chart.
        labels: of what the numbers are, and of the figure.
        x: ascending.
        series: value, low and high at each of them, by name.
        level: that the figure must not exceed; None without one.
    """

    title: str
    labels: tuple[str, str]
    x: tuple[float, ...]
    series: Mapping[str, tuple[tuple[float, float, float], ...]]
    level: float | None = None


@dataclass(frozen=True)
class Evidence:
    """Of an audit.

    Attributes:
        attacks: by name.
        loss: of all samples; None without samples.
        curves: over references and steps, where there are some.
        images: PNG files of the summary's exposed members, by their place in it; empty if they are not to be shown.
        no_images: why there are none though they are to be shown.
    """

    attacks: Mapping[str, AttackEvidence] = field(default_factory=dict)
    loss: Histogram | None = None
    curves: tuple[Curve, ...] = ()
    images: Mapping[int, bytes] = field(default_factory=dict)
    no_images: str = ""
