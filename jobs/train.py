"""Train the network on the members of a configuration; a second call goes on where the first was stopped."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from mia_batch.comm import launched_first
from mia_batch.config import load_config
from mia_batch.entry import BAD_INPUT, OK, RESUME, StopRequest, run_main
from mia_batch.errors import InputError
from mia_batch.plan import named_in

log = logging.getLogger("mia_batch.train")


def train(args: argparse.Namespace, stop: StopRequest) -> int:
    """The whole stage; returns the exit code."""
    config = load_config(args.config, need=("data",))
    from mia_batch import inference, training  # MindSpore: seconds, so only for a configuration that is right

    # Alone it may use every core; several ranks on a node have a card each.
    local_rank, local_size = training.local_place(os.environ)
    placement = inference.place(config.extract.device, local_rank, local_size, os.environ)
    inference.set_up(placement)
    with named_in(config.path):
        try:
            ranks = training.connect_ranks(placement.device_target, os.environ)
        except InputError:
            if launched_first():  # all ranks have found the same
                raise
            return BAD_INPUT
        outcome = training.train(config, stop, ranks)
    if not outcome.finished:
        log.warning(
            "stopped by signal %s in epoch %d of %d, state saved; the same command goes on from there",
            stop.signal, outcome.epochs + 1, config.train.epochs,
        )
        return RESUME
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python jobs/train.py CONFIG`."""
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML); writes its model.checkpoint")
    parser.add_argument("--verbose", action="store_true", help="log more")
    args = parser.parse_args(argv)
    with StopRequest().listening() as stop:
        return run_main(lambda: train(args, stop), prefix="train", verbose=args.verbose)


if __name__ == "__main__":
    sys.exit(main())
