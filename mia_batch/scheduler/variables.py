"""The environment variables that a configuration names: they go with its jobs, also where sbatch passes none on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mia_batch.settings.loading import read_yaml
from mia_batch.settings.schema import Config

NAME = re.compile(r"\$(?:\{(\w+)\}|(\w+))")  # as os.path.expandvars finds it


def exported(config: Config, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Words for the scripts that set each variable which the configuration, or a change of it, names."""
    texts = (*_texts(read_yaml(config.path, "configuration", Config.model_fields)), *config.changes)
    names = dict.fromkeys(plain or braced for text in texts for braced, plain in NAME.findall(text))
    return tuple(f"export={name}={environ[name]}" for name in names if name in environ)


def _texts(value: Any) -> Iterator[str]:
    """All text in plain data, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
