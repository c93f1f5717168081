"""Train reference models on this machine, one after the other, each in a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mia_batch.process.child import run_stage, stage_command
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, OK, RESUME
from mia_batch.process.progress import Progress
from mia_batch.process.stage_log import StageLog
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.state import SHADOWS
from mia_batch.settings.schema import Config
from mia_batch.stages.shadows import Models, result_line

log = logging.getLogger(__name__)


def train_models(config: Config, models: Models, *, talk: Sequence[str] = (), log_path: Path | None = None) -> int:
    """Train those that are missing, as far as nothing stops it, which is said.

    Args:
        config: by which they are planned.
        models: of the plan.
        talk: --verbose, which logs every epoch, or --quiet, or neither.
        log_path: keeps what the trainings print.

    Returns:
        The exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C, once the training has saved its state.
    """
    count = models.plan.models.n_references
    unit: dict[str, Any] = {"what": SHADOWS, "unit": "models", "done": count - len(models.missing)}
    with StopRequest().listening() as stop, Progress(count, **unit, summed_up=False) as progress:
        for number in models.missing:
            kept = StageLog(log_path, SHADOWS) if log_path else None
            code = run_stage(stage_command("shadows", _arguments(config, models, number, talk)), log=kept)
            if code == OK:
                progress.add(1)
                log.info("%d of %d: %s", number + 1, count, result_line(models.paths, models.plan, number))
            if stop.signal == signal.SIGINT:
                raise KeyboardInterrupt
            if code != OK or stop:
                return _explain(number, code or RESUME)
    return OK


def _arguments(config: Config, models: Models, number: int, talk: Sequence[str]) -> list[str]:
    words = [str(config.path), f"--out={models.paths.root}", f"--only={number}"]
    return [*words, *(f"--set={change}" for change in config.changes), *(talk or ["--brief"])]


def _explain(number: int, code: int) -> int:
    if code == RESUME:
        log.warning("stopped at model %d, state saved; the same command goes on from there", number)
    elif code != BAD_INPUT:
        said = f"training of model {number} failed with exit code {code}; the same command goes on from there"
        print(f"mia-batch: {said}", file=sys.stderr)
        return FAILED
    return code
