"""Where the programs of this package look for modules: not in the working directory, where a yaml.py may lie."""

import os
import sys

PACKAGE = os.path.dirname(os.path.realpath(__file__))
JOBS = (os.path.join(PACKAGE, "jobs"), os.path.join(os.path.dirname(PACKAGE), "jobs"))  # installed; in a checkout


def is_program() -> bool:
    """Whether Python was started for this package: `-m mia_batch...`, `jobs/extract.py` or `mia-batch`."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m":  # until the module is found, and then its file
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m").split(".")[0] == "mia_batch"
    return os.path.basename(started) == "mia-batch" or os.path.dirname(os.path.realpath(started)) in JOBS


def leave_out_start_folder() -> None:
    """Take what was not meant to be there off the path of modules, here and for processes that this one starts.

    Python puts the working directory first for `-m`, and jobs/ for `jobs/extract.py`, whose train.py is not the user's.
    An empty entry of PYTHONPATH, as PYTHONPATH=/x:$PYTHONPATH leaves one, means the working directory too; one that
    PYTHONPATH names stays. PYTHONSAFEPATH alone would not do: Python 3.10 does not know it, and launchers may lose it.
    Code of users is found in the working directory all the same, after everything else: see settings/user_code.py.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    named = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    unwanted = {_real(""), *JOBS} - {_real(folder) for folder in named}
    library = os.path.dirname(os.__file__)  # what follows it was installed
    end = sys.path.index(library) if library in sys.path else len(sys.path)
    sys.path[:end] = [folder for folder in sys.path[:end] if _real(folder) not in unwanted]


def _real(folder: str) -> str:
    try:
        return os.path.realpath(folder)
    except OSError:  # the working directory was removed
        return folder
