"""`mia-batch import`: take a model's outputs from files, and leave a run directory that `mia-batch run` audits."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from mia_batch.errors import InputError
from mia_batch.files import holds, shipped, write_text
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.stop import StopRequest
from mia_batch.report.media import shell
from mia_batch.rundir.paths import RunPaths
from mia_batch.settings.loading import make_config, named_in, read_yaml
from mia_batch.settings.outputs import KINDS, SIDES, OutputColumns, OutputsConfig
from mia_batch.settings.schema import FROM_FILES, Config
from mia_batch.stages.arguments import named_folder, refuse_no_folder
from mia_batch.stages.import_outputs import import_into

log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch import outputs.npz --out runs/one",
    "mia-batch import in.csv out.csv --out runs/two --column label=y",
    "mia-batch import logits=z.npy label=y.npy member=m.npy --out runs/three",
)
CONFIG = "audit.yaml"  # in the run directory
LISTS = ("logits", "probabilities", "slices")  # keys of data.columns that take several names
KEPT = ("nonmembers_used_for", "max_duplicates", "randomised", "canaries", "columns")  # keys of a given `data`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE... --out DIR, names of columns, and the config that says what to do with them."""
    files = (
        ".npz, .npy, .csv, .tsv, .parquet, .h5 or .hdf5: one file with a column `member`, or two, members first; or "
        ".npy files as NAME=FILE: logits=z.npy label=y.npy member=m.npy, or members.loss=a.npy nonmembers.loss=b.npy"
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=files)
    parser.add_argument("--out", metavar="DIR", required=True, help=f"run directory; gets {CONFIG} too")
    names = "what a column is called, such as label=y, or logits=a,b,c: one of " + ", ".join(OutputColumns.model_fields)
    parser.add_argument("--column", metavar="KEY=NAME", action="append", default=[], help=names)
    config = "take attacks, gate and report from this configuration (default configs/outputs.yaml)"
    parser.add_argument("--config", metavar="CONFIG", help=config)


def run(args: argparse.Namespace) -> int:
    """Import, write the config, and say what comes next."""
    paths = RunPaths(named_folder("--out", args.out))
    refuse_no_folder("--out", paths.root)
    source = Path(args.config) if args.config else shipped("configs") / "outputs.yaml"
    raw = read_yaml(source, "configuration", ("attack",))
    file = paths.root / CONFIG
    raw["data"] = _data(raw.get("data") if args.config else None, args.files, args.column)
    with _named_by_words({"data.files": "FILE", **({"data.columns": "--column"} if args.column else {})}, source):
        config = make_config(raw, source, need=("data",)).model_copy(update={"path": file})
    text = _text(raw, config)
    if file.exists() and not holds(file, text):
        rule = f"holds another {CONFIG}; choose another --out, or audit with mia-batch run"
        raise InputError(f"{paths.root}: --out: {rule}")
    with StopRequest().listening() as stop, _named_by_words({"data.files": "FILE"}, source), named_in(source):
        code = import_into(config, paths, stop)
    if code == RESUME and stop.signal == signal.SIGINT:
        raise KeyboardInterrupt  # as `mia-batch run` ends
    if code == OK:
        write_text(file, text)
        print(shell("mia-batch", "run", str(file), "--out", str(paths.root)))
    return code


@contextmanager
def _named_by_words(words: Mapping[str, str], source: Path) -> Iterator[None]:
    """Name in problems the words of the command line, where the fields are of these and not of the file `source`."""
    try:
        yield
    except InputError as error:
        lines = list(error.problems)
        for field, word in words.items():
            begin = f"{source}: {field}"
            lines = [word + line.removeprefix(begin) if line.startswith(begin) else line for line in lines]
        raise InputError(lines) from error


def _text(raw: Mapping[str, Any], config: Config) -> str:
    """The sections of `raw`, with every path as it is from everywhere."""
    resolved = config.resolved()
    data = resolved["data"]
    data["columns"] = {key: value for key, value in data["columns"].items() if value}
    if data["max_duplicates"] == OutputsConfig.model_fields["max_duplicates"].default:
        del data["max_duplicates"]
    data = {key: value for key, value in data.items() if value not in ({}, [])}
    sections = {"data": data, **{name: section for name, section in raw.items() if name != "data"}}
    sections |= {"model": resolved["model"]} if "model" in raw else {}
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def _data(section: Any, words: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    """The section `data`; of the one in a config that was given, what goes with these files too."""
    former = section if isinstance(section, Mapping) else {}
    kept = {key: former[key] for key in KEPT if key in former} if former.get("source") == FROM_FILES else {}
    if others := [str(key) for key in former if key not in (*kept, "source", "files")]:
        log.info("of the given config, not taken for source %s: data.%s", FROM_FILES, ", data.".join(others))
    named = _with_named(kept.pop("columns", {}), _columns(columns))
    return {"source": FROM_FILES, "files": _files(words), **kept, **({"columns": named} if named else {})}


def _with_named(former: Any, named: dict[str, Any]) -> Any:
    """A config's `columns` with those that the command line names; a kind of outputs there takes the place of any."""
    if not named or not isinstance(former, Mapping):
        return named or former
    replaced = KINDS if named.keys() & set(KINDS) else ()
    return {key: name for key, name in former.items() if key not in replaced} | named


def _files(words: Sequence[str]) -> Any:
    """The key `data.files` of the words of a command line.

    Raises:
        InputError: neither one file, nor two, nor NAME=FILE alone.
    """
    if not all("=" in word and not Path(word).exists() for word in words):
        files = [str(Path(word).absolute()) for word in words]
        if len(files) > 2:
            rule = "must be one file, two (members, then non-members), or NAME=FILE.npy for each"
            raise InputError(f"FILE: {rule}, got {len(files)} files")
        return files[0] if len(files) == 1 else dict(zip(SIDES, files, strict=True))
    found: dict[str, Any] = {}
    for word in words:
        name, _, file = word.partition("=")
        side, _, part = name.rpartition(".")
        if side and side not in SIDES:
            raise InputError(f"FILE: must name what {file} holds, as logits or {SIDES[0]}.logits, got {name}")
        into = found.setdefault(side, {}) if side else found
        if not part or part in into:
            raise InputError(f"FILE: must name what each file holds once, got {word}")
        into[part] = str(Path(file).absolute())
    return found


def _columns(words: Sequence[str]) -> dict[str, Any]:
    """The key `data.columns`."""
    found: dict[str, Any] = {}
    for word in words:
        key, _, name = word.partition("=")
        if key not in OutputColumns.model_fields or not name:
            keys = ", ".join(OutputColumns.model_fields)
            raise InputError(f"--column: must be KEY=NAME, KEY one of {keys}, got {word}")
        if key in found:
            several = f"; several columns are {key}=a,b,c" if key in LISTS else ""
            raise InputError(f"--column: must give each key once, got {key} twice{several}")
        names = name.split(",")
        found[key] = names if key == "slices" or (key in LISTS and len(names) > 1) else name
    return found
