"""`mia-batch init`: a first config that runs as it is: the shipped one of a kind, with its code and a site file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.files import holds, shipped, write_text
from mia_batch.process.exit_codes import OK
from mia_batch.report.media import shell, terminal
from mia_batch.stages.arguments import named_folder

EXAMPLES = (
    "mia-batch init --kind tabular",
    "mia-batch init --kind image --site gpu --out first",
)
KINDS = {"image": "resnet", "tabular": "tabular", "text": "text", "outputs": "outputs"}  # and each one's config
# Before everything else there is to do, of kinds whose config does not train a network.
FIRST = {"outputs": "python {folder}/outputs/data.py   # an example's outputs, in place of yours"}
# What a shipped config says of its own place: runs are beside `configs`, and the repository's jobs.
PLACES = {"../runs/": "runs/", "python jobs/train.py configs/": "python -m mia_batch.jobs.train ", " configs/": " "}
SCHEMA = "schema.json"  # beside configs, and beside site files: their first line names it


@dataclass(frozen=True)
class FileToWrite:
    """A file to be written, and its text."""

    path: Path
    text: str

    @property
    def is_there(self) -> bool:
        """Whether the file has this text already.

        Raises:
            InputError: something else is there, which is never overwritten.
        """
        try:
            if not os.path.lexists(self.path):
                return False
            if holds(self.path, self.text):
                return True
        except OSError:  # a folder, a link to nowhere
            pass
        rule = "must not be there, or be the file that would be written"
        raise InputError(f"{self.path}: --out: {rule}, got another; it is not overwritten: choose another --out")


def copies(kind: str, site: Path, out: Path) -> list[FileToWrite]:
    """The config of a kind, its code, the site file, and the schemas that they name; each as `out` will have it.

    Raises:
        InputError: this version ships none of the kind.
    """
    configs, name = shipped("configs"), KINDS[kind]
    sources = [configs / f"{name}.yaml", configs / SCHEMA, *sorted((configs / name).glob("*.py"))]
    if not sources[0].exists():
        raise InputError(f"--kind: must be one that this version ships, got {kind}, but there is no {sources[0]}")
    below = {source: source.relative_to(configs) for source in sources}
    below |= {site: Path("sites") / site.name, configs / "sites" / SCHEMA: Path("sites") / SCHEMA}
    texts = {place: source.read_text(encoding="utf-8") for source, place in below.items()}
    for said, here in PLACES.items():
        texts[below[sources[0]]] = texts[below[sources[0]]].replace(said, here)
    return [FileToWrite(out / place, text) for place, text in texts.items()]


def write(files: list[FileToWrite]) -> list[Path]:
    """Write what is not there yet, all files or none; returns what was written.

    Raises:
        InputError: with a line for each file that is in the way; or the disk is full.
    """
    problems: list[str] = []
    missing: list[FileToWrite] = []
    for file in files:
        try:
            missing += [] if file.is_there else [file]
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    with removed_on_failure([file.path for file in missing]) as paths:
        for file in missing:
            try:
                file.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                rule = "must be a directory that can be made"
                raise InputError(f"--out: {rule}, got {file.path.parent}: {error.strerror}") from error
            write_text(file.path, file.text)
    return paths


@contextmanager
def removed_on_failure(paths: list[Path]) -> Iterator[list[Path]]:
    """Remove these files, and the folders above them that were not there, if the block fails."""
    above = {folder for path in paths for folder in path.parents if not folder.exists()}
    try:
        yield paths
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in sorted(above, reverse=True):  # the deepest first
            with suppress(OSError):  # not made yet, or somebody else has put a file there
                folder.rmdir()
        raise


def next_commands(kind: str, config: Path, site: Path) -> list[str]:
    """What to do now: the training, where the config has one, then the audit here or on a cluster."""
    audit, folder = shell(str(config)), shell(str(config.parent))
    run = shell(str(config.parent / "runs" / "first"))
    first = FIRST[kind].format(folder=folder) if kind in FIRST else f"python -m mia_batch.jobs.train {audit}"
    return [
        first, f"mia-batch check {audit}", f"mia-batch run {audit} --out {run}",
        f"mia-batch submit {audit} --out {run} --site {shell(str(site))}   # instead of run, on a cluster",
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--kind, --site and --out."""
    kinds = (
        f"{', '.join(KINDS)}: what is audited, a network on images, on vectors or on tokens, or outputs that are there "
        "already"
    )
    parser.add_argument("--kind", metavar="KIND", choices=list(KINDS), required=True, help=kinds)
    sites = sorted(path.stem for path in (shipped("configs") / "sites").glob("*.yaml"))
    site = f"of the cluster: {', '.join(sites)} (default cpu)"
    parser.add_argument("--site", metavar="SITE", choices=sites, default="cpu", help=site)
    parser.add_argument("--out", metavar="DIR", default=".", help="where the files go (default here)")


def run(args: argparse.Namespace) -> int:
    """Write the files, say which, and what comes next."""
    named_folder("--out", args.out)
    out = Path(args.out)
    site = shipped("configs") / "sites" / f"{args.site}.yaml"
    files = copies(args.kind, site, out)
    for path in write(files):
        print(terminal(f"wrote {path}"))
    print("next:")
    for line in next_commands(args.kind, out / f"{KINDS[args.kind]}.yaml", out / "sites" / site.name):
        print(f"  {line}")
    return OK
