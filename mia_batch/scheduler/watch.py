"""Which checkpoints below a directory are complete, and why the others are not audited."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from mia_batch import json_text
from mia_batch.errors import InputError
from mia_batch.files import sha256
from mia_batch.network.checkpoint_bytes import SUFFIXES, stated_entries

log = logging.getLogger(__name__)

QUIET_S = 120.0
NUMBERED = re.compile(r"(.+)-\d+-of-(\d+)")  # of part 2 of 3: net-00002-of-00003
INDEX, MAP = ".index.json", "param_name_map.json"  # say which parameter is in which file: Hugging Face's, MindSpore's
RANK = re.compile(r"rank_?\d+")  # in the name of a rank's folder, or of its file


def complete_checkpoints(folder: Path, *, quiet_s: float = QUIET_S) -> Iterator[tuple[Path, str]]:
    """Checkpoints below `folder` that nobody writes to any more, and their SHA-256, in the order they were written.

    The log says of each of the others why it is none.

    Args:
        folder: searched with its subfolders; hidden files are left out.
        quiet_s: a file that changed less than so many seconds ago may still be written to.

    Raises:
        InputError: `folder` is no directory, or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: --watch: must be a directory")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: --watch: must be a directory that can be read")
    files = sorted(_candidates(folder), key=lambda path: (_mark(path), path))
    for path in _quiet(_without_parts(files), quiet_s):
        before = _mark(path)
        if _is_whole(path) and (digest := _digest(path)):
            if _mark(path) == before:
                yield path, digest
            else:
                _not_audited(f"{path}: changed while it was read")


def _not_audited(why: object) -> None:
    log.warning("not audited: %s", why)


def _candidates(folder: Path) -> Iterator[Path]:
    """Files by their ending, links to them too."""
    for root, _, names in os.walk(folder, onerror=lambda error: _not_audited(f"what is below {_words(error)}")):
        for path in (Path(root, name) for name in names if not name.startswith(".")):
            if path.suffix in SUFFIXES:
                try:
                    if path.is_file():
                        path.stat()
                        yield path
                    else:
                        _not_audited(f"{path}: must be a file, got {'a broken link' if path.is_symlink() else 'none'}")
                except OSError as error:
                    _not_audited(_words(error))


def _words(error: OSError) -> str:
    return f"{error.filename}: must be readable to this user, got: {error.strerror}"


def _mark(path: Path) -> tuple[int, int]:
    """Time of the last change in nanoseconds and size; zeros for a file that has gone."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _is_whole(path: Path) -> bool:
    """A file that is cut short, or still grows, is not."""
    try:
        is_part = stated_entries(path).is_part
    except InputError as error:
        _not_audited(error)
        return False
    if is_part:
        got = "a rank's, saved with remove_redundancy"
        _not_audited(f"{path}: must be one file with all weights, got {got}; merge them")
    return not is_part


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except InputError as error:
        _not_audited(error)
        return ""


# -- is it still written to? -------------------------------------------------------------------------------------------


def _quiet(paths: Sequence[Path], quiet_s: float) -> list[Path]:
    """Those to which nobody has written for `quiet_s` seconds, as far as their dates or a look of so long can tell."""
    now = time.time()
    for path in paths:
        modified = _mark(path)[0] / 1e9
        if modified > now + quiet_s:
            date = datetime.fromtimestamp(modified, timezone.utc).isoformat(timespec="seconds")
            log.warning("%s: is dated in the future, %s", path, date)
    watched = {path: _mark(path) for path in paths if _changed(path, now + quiet_s) is None}
    if watched:
        log.warning("%s: watched for %g s, as no date says when it was written", _some(watched), quiet_s)
        time.sleep(quiet_s)
    found = []
    for path in paths:
        changed = _changed(path, now + quiet_s)
        if (_mark(path) == watched[path]) if path in watched else (changed is not None and now - changed >= quiet_s):
            found.append(path)
        else:
            log.info("left for the next time: %s changed in the last %g s", path, quiet_s)
    return found


def _changed(path: Path, latest: float) -> float | None:
    """When a file was last written to; None where all that the file system says of it is later than `latest`.

    A writer can set the time of the last change of content, which may then be in the future, but not that of the last
    change of any kind.
    """
    try:
        status = path.stat()
    except OSError:
        return 0.0
    return next((when for when in (status.st_mtime, status.st_ctime) if when <= latest), None)


# -- is it a part of one? ----------------------------------------------------------------------------------------------


def _without_parts(paths: Sequence[Path]) -> list[Path]:
    """Those that hold a whole model; of each set of parts a line says that it is one checkpoint in several files."""
    left = dict.fromkeys(paths)
    for how, parts in (*_numbered(paths), *_indexed(paths), *_of_ranks(paths)):
        here = [path for path in parts if path in left]
        if here:
            _not_audited(f"{_some(here)}: must be one file with all weights, got {how}; put them into one")
        for path in here:
            del left[path]
    return list(left)


def _some(paths: Iterable[Path]) -> str:
    """The first of them, and how many more there are."""
    first, *others = map(str, sorted(paths))
    return f"{first} and {len(others)} more" if others else first


def _numbered(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Parts by their names."""
    sets: dict[tuple[Path, str, int], list[Path]] = defaultdict(list)
    for path in paths:
        match = NUMBERED.fullmatch(path.stem)
        if match and int(match[2]) > 1:
            sets[path.parent, match[1] + path.suffix, int(match[2])].append(path)
    for (_, _, count), parts in sets.items():
        yield f"{len(parts)} of {count} parts of one", parts


def _indexed(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Parts that an index beside them names."""
    for folder in dict.fromkeys(path.parent for path in paths):
        for index in sorted(path for path in folder.iterdir() if path.name.endswith((INDEX, MAP))):
            names = _named_by(index)
            if len(names) > 1:
                yield f"{len(names)} parts of one by {index.name}", [folder / name for name in names]


def _named_by(index: Path) -> set[str]:
    """The files that an index names; none if it is not one."""
    try:
        found = json_text.read(index)
    except (OSError, ValueError):
        return set()
    places = found.get("weight_map", found) if isinstance(found, dict) else {}
    names = places.values() if isinstance(places, dict) else ()
    return {name for name in names if isinstance(name, str) and name.endswith(SUFFIXES)}


def _of_ranks(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Files that are named alike but for the rank, and do not hold the same parameters.

    Ranks that each train on other data save the whole model each.
    """
    sets: dict[tuple[Path, str, str], list[Path]] = defaultdict(list)
    for path in paths:
        names = path.parent.name, path.name
        alike = RANK.sub("rank", names[0]), RANK.sub("rank", names[1])
        if alike != names:
            sets[path.parent.parent, alike[0], alike[1]].append(path)
    for parts in sets.values():
        if len({_form(path) for path in parts} - {None}) > 1:
            yield f"what {len(parts)} ranks have saved of one", parts


def _form(path: Path) -> frozenset[tuple[str, tuple[int, ...]]] | None:
    """Names and shapes of a file's parameters; None where it cannot be read, which another line says."""
    try:
        return frozenset((name, entry.dims) for name, entry in stated_entries(path).entries.items())
    except InputError:
        return None
