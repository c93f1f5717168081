"""`mia-batch nightly`: queue the audits of new checkpoints."""

from mia_batch.scheduler.nightly import EXAMPLES, QUIET, add_arguments, run

__all__ = ["EXAMPLES", "QUIET", "add_arguments", "run"]
