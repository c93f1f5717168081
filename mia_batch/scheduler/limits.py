"""A site's limits on time and memory beside what the stages are estimated to take."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mia_batch.scheduler.site import Site
from mia_batch.stages.estimates import StageCost, memory_words, time_words

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# sbatch --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, and with seconds.
SHORT = re.compile(r"(?:(?P<hours>\d+):(?=\d+:))?(?P<minutes>\d+)(?::(?P<seconds>\d+))?")
LONG = re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?")
SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def warnings(site: Site, found: Iterable[StageCost]) -> list[str]:
    """One line for each limit of the site that is below an estimate."""
    lines = []
    for estimate in found:
        ask = site.stage(estimate.stage)
        time, memory = limit_seconds(ask.time), limit_bytes(ask.memory)
        if time is not None and estimate.seconds is not None and time < estimate.seconds:
            after = "" if estimate.stage == "reduce" else ": the job will go back to the queue and go on"
            needs = time_words(estimate)
            lines.append(f"site: {estimate.stage}.time: {ask.time} is below the estimate, {needs}{after}")
        of_node = estimate.memory * (ask.tasks_per_node if estimate.stage == "extract" else 1)
        if memory is not None and memory < of_node:
            needs = memory_words(estimate, of_node)
            lines.append(f"site: {estimate.stage}.memory: {ask.memory} of a node is below the estimate, {needs}")
    return lines


def limit_seconds(time: str | None) -> int | None:
    """Of sbatch --time; None where it sets no limit, or where Slurm has its own words for it."""
    match = LONG.fullmatch(time or "") or SHORT.fullmatch(time or "")
    if not match or not sum(int(text or 0) for text in match.groupdict().values()):
        return None
    return sum(SECONDS[unit] * int(text or 0) for unit, text in match.groupdict().items())


def limit_bytes(memory: str | None) -> int | None:
    """Of sbatch --mem, in MiB without a unit; None where it sets no limit (0 is the whole node)."""
    match = re.fullmatch(r"(\d+)([KMGT])?B?", (memory or "").upper())
    return int(match[1]) * UNITS[match[2] or "M"] or None if match else None
