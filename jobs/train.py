"""Train the network on the members of a configuration; a second call goes on where the first was stopped."""

import argparse
import sys

from mia_batch.process.exit_codes import run_stoppable
from mia_batch.stages.train import run_train_stage

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="train.py", description=__doc__)
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML); writes its model.checkpoint")
    parser.add_argument("--verbose", action="store_true", help="log more")
    sys.exit(run_stoppable(run_train_stage, parser.parse_args(), prefix="train"))
