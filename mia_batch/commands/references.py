"""`mia-batch references CONFIG...`: whose outputs are in a store, how large they are, and what no config names."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.files import not_written
from mia_batch.locks import in_use
from mia_batch.process.exit_codes import OK
from mia_batch.report.media import terminal
from mia_batch.report.tables import row_texts, terminal_width, wrapped
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.reference_files import reference_weights
from mia_batch.rundir.reference_store import StoredSamples, files_in, reference_paths, rows_done
from mia_batch.settings.loading import load_config, named_in
from mia_batch.stages.plan import look_at, make_manifest

EXAMPLES = (
    "mia-batch references audit.yaml",
    "mia-batch references a.yaml b.yaml --prune        # show what neither names",
    "mia-batch references a.yaml b.yaml --prune --yes  # remove it",
)
SHOWN = 12  # digits of a key


@dataclass(frozen=True)
class Wanted:
    """What a config wants of a store: the files of weights by the keys of their outputs, and rows of each.

    What is still to be trained has no key.
    """

    store: Path
    weights: dict[str, Path]
    n_rows: int
    untrained: tuple[Path, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG... --prune --yes."""
    parser.add_argument("configs", metavar="CONFIG", nargs="+", help="configuration file (YAML) with references")
    prune = "show what is in the configs' stores that none of them names"
    parser.add_argument("--prune", action="store_true", help=prune)
    parser.add_argument("--yes", action="store_true", help="with --prune: remove it")


def run(args: argparse.Namespace) -> int:
    """List the references, or prune."""
    if args.yes and not args.prune:
        raise InputError("--yes: must be given with --prune, got it alone")
    found = [wanted_by(config) for config in args.configs]
    stores = dict.fromkeys(each.store for each in found)
    for store in stores:
        wanted = [each for each in found if each.store == store]
        print("\n".join(pruned(store, wanted, remove=args.yes) if args.prune else listed(store, wanted)))
    return OK


def wanted_by(config_file: str) -> Wanted:
    """Read a config and its files.

    Raises:
        InputError: it has no references, or its files cannot be read.
    """
    config = load_config(config_file)
    if config.references is None:
        raise InputError(f"{config.path}: references: is required")
    with named_in(config.path):
        (chosen, _), manifest = look_at(config.data, 1), make_manifest(config)
    samples = StoredSamples(chosen.split, chosen.sample_index, chosen.label)
    files = reference_weights(config.references) | {"model.checkpoint": config.model.checkpoint}
    weights = {paths.key: files[field] for field, paths in reference_paths(manifest, samples).items()}
    untrained = tuple(file for field, file in files.items() if field not in manifest.digests)
    return Wanted(config.references.store, weights, len(chosen), untrained)


def listed(store: Path, wanted: list[Wanted]) -> list[str]:
    """A line for each reference, and one for all that is in the store."""
    files = files_in(store)
    rows: list[tuple[str, str, str, str]] = []
    for config in wanted:
        for key, weights in config.weights.items():
            size = _size(sum(each.size for each in files if each.key == key))
            progress = _progress(ReferencePaths(store, key), config.n_rows)
            rows.append((key[:SHOWN], f"{progress:>9}", f"{size:>10}", str(weights)))
        rows += [("", "untrained", "", str(weights)) for weights in config.untrained]
    total, width = _size(sum(each.size for each in files)), terminal_width()
    said = terminal(f"{store}: {sum(each.complete for each in files)} references, {total}")
    return [*row_texts(list(dict.fromkeys(rows)), width=width), wrapped(said, width)]


def _progress(paths: ReferencePaths, n_rows: int) -> str:
    if paths.outputs.exists():
        return "done"
    return f"{rows_done(paths)[0] / n_rows:.0%} done" if paths.partial.exists() else "missing"


def pruned(store: Path, wanted: list[Wanted], *, remove: bool) -> list[str]:
    """A line for each file that no config names and no process writes, which is removed if so wished."""
    files = files_in(store)
    keys = {key for each in wanted for key in each.weights}
    keys |= {each.key for each in files if _may_be_written(each.path)}
    rows, freed, width = [], 0, terminal_width()
    for each in files:
        if each.key in keys:
            continue
        rows.append(("removed" if remove else "not named", f"{_size(each.size):>10}", str(each.path)))
        freed += each.size
        if remove:
            try:
                each.path.unlink(missing_ok=True)  # another process prunes too
            except OSError as error:
                raise not_written(each.path, error, "must be a file that can be removed") from error
    said = f"{_size(freed)} removed" if remove else f"{_size(freed)} that no config here names; --yes removes it"
    last = wrapped(terminal(f"{store}: {said if rows else 'nothing to remove'}"), width)
    return [*(row_texts(rows, width=width) if rows else []), last]


def _may_be_written(path: Path) -> bool:
    """Whether a process writes a file; so it may where nobody can tell, as of a file of another user."""
    try:
        return in_use(path)
    except OSError:
        return True


def _size(count: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 2**10:.1f} KiB"
