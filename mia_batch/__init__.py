"""Membership-inference audits of trained models, as a batch job for HPC clusters and from Python."""

from typing import TYPE_CHECKING, Any

from mia_batch import module_path

if TYPE_CHECKING:
    from mia_batch.api.audit import audit as audit
    from mia_batch.api.membership_inference import MembershipInference as MembershipInference

__version__ = "0.1.0"

# Loaded when they are asked for: most who import the package want neither.
_FROM_PYTHON = {"audit": "audit", "MembershipInference": "membership_inference"}

if module_path.is_program():  # now, before anything else is imported
    module_path.leave_out_start_folder()


def __getattr__(name: str) -> Any:
    if name not in _FROM_PYTHON:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.api.{_FROM_PYTHON[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_PYTHON})
