"""The environment of a job step."""

# What a shell of `srun --pty`, or a notebook started by it, has of Slurm, PMI and PMIx.
OF_A_STEP = {
    "PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "99", "PMI_JOBID": "7.0", "PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.7",
    "PMIX_SERVER_URI41": "pmix-server.1;tcp4://127.0.0.1:1", "SLURM_NTASKS": "1", "SLURM_NPROCS": "1",
    "SLURM_JOBID": "7", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODELIST": "nowhere", "SLURM_JOB_NODELIST": "nowhere", "SLURM_TASKS_PER_NODE": "1", "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
}  # fmt: skip
