"""Membership-inference audits of trained models, as a batch job for HPC clusters."""

from mia_batch import module_path

__version__ = "0.1.0"

if module_path.is_program():  # now, before anything else is imported
    module_path.leave_out_start_folder()
