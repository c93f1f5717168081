"""`mia-batch nightly`: queue the audits of new checkpoints."""

from mia_batch.scheduler.nightly import add_arguments, run

__all__ = ["add_arguments", "run"]
