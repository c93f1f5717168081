"""Membership-inference audits of trained models, as a batch job for HPC clusters."""

__version__ = "0.1.0"
