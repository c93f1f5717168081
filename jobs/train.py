"""Train the network on the members of a configuration; a second call goes on where the first was stopped."""

import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.arguments import add_config_arguments, job_parser
from mia_batch.stages.train import run_train_stage

parser = job_parser("train", __doc__, "audit.yaml --set train.epochs=5")
add_config_arguments(parser, "; writes its model.checkpoint")

if __name__ == "__main__":
    sys.exit(run_stoppable(run_train_stage, parser.parse_args(), prefix="train"))
