# make demo    set up and run the main job, small    make cluster       start four Slurm nodes on this host
# make test    set up and pass every check           make cluster-down  end them
# make faults  damage every file that is read and disturb every stage, many times, and count what becomes of it
# make mlflow  test the MLflow logger, in .venv-mlflow
# make bench   compare the attack stage with stock grid search, and measure how often intervals and the gate are right
.PHONY: demo test lint audit mlflow bench faults scripts schemas cluster cluster-down clean

BIN := .venv/bin
export PYTHON

demo:
	@.ci/install cpu
	@$(BIN)/mia-batch demo --out runs/demo

# Two files at a time: the cluster's tests mostly wait.
test: lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

lint:
	@.ci/install cpu,test,dask
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/bandit --quiet --recursive mia_batch jobs --ini setup.cfg
	@$(BIN)/shellcheck .ci/run .ci/install $(wildcard slurm/*.sbatch slurm/*.sh)

# Seeded: `make faults CASES=200 FAULTS=50 SEED=2` runs others. A fault of a command takes a minute, one of a node two.
CASES := 20000
HDF5_CASES := 400
FAULTS := 500
COMMANDS := 40
NODES_OFF := 4
SEED := 1

faults:
	@.ci/install cpu,test
	@$(BIN)/python tests/faults/input_campaign.py --cases $(CASES) --seed $(SEED)
	@$(BIN)/python tests/faults/hdf5_run.py --cases $(HDF5_CASES) --seed $(SEED)
	@$(BIN)/python tests/faults/process_campaign.py --faults $(FAULTS) --commands $(COMMANDS) \
		--nodes-off $(NODES_OFF) --seed $(SEED)

# Asks the advisories about every pinned package.
audit:
	@.ci/install audit
	@$(BIN)/python .ci/audit $(BIN)/pip-audit

# MLflow's own pins differ from those of the other tests.
mlflow:
	@.ci/install mlflow,pytest mlflow
	@.venv-mlflow/bin/python -m pytest tests/extras

bench:
	@.ci/install cpu,test,bench
	@$(BIN)/python tests/bench/attack_stage.py
	@$(BIN)/python tests/bench/validity.py
	@$(BIN)/python tests/bench/gate_validity.py
	@$(BIN)/python tests/bench/epsilon_validity.py
	@$(BIN)/python tests/bench/reference_store.py

# Puts slurm/body.bash into the stages' scripts, below what is each one's own.
scripts:
	@for stage in shadows prepare extract references import attack reduce trajectory; do \
		sed -i '/^# --- slurm\/body.bash/,$$d' slurm/$$stage.sbatch && cat slurm/body.bash >>slurm/$$stage.sbatch; \
	done

# Writes the JSON schemas that the first line of each shipped config and site file names, and that of summary.json.
schemas:
	@$(BIN)/mia-batch schema >configs/schema.json
	@$(BIN)/mia-batch schema --site >configs/sites/schema.json
	@$(BIN)/mia-batch schema --summary >configs/summary.schema.json

cluster:
	@.ci/install cpu,test
	@$(BIN)/python tests/cluster/cluster.py up

cluster-down:
	@$(BIN)/python tests/cluster/cluster.py down

clean:
	rm -rf .venv runs build *.egg-info
