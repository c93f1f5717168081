"""How tests start the jobs: as a user or a scheduler does, as processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]


def run_job(
    job: str, *arguments: str | Path, ranks: int = 0, env: dict[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run jobs/<job>.py, under mpirun if `ranks`."""
    command = [sys.executable, str(REPO / "jobs" / f"{job}.py"), *map(str, arguments)]
    if ranks:
        command = [str(Path(sys.prefix) / "bin" / "mpirun"), "-n", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout, stdin=subprocess.DEVNULL)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The only line of a refusal: exit code 2, no traceback."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("mia-batch: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def words_of_bash(line: str, **variables: str) -> list[str]:
    """The words that bash makes of a line, in which these variables are."""
    command = ["bash", "-c", f"printf '%s\\0' {line}"]
    found = subprocess.run(command, capture_output=True, check=True, env=variables).stdout
    return [os.fsdecode(word) for word in found.split(b"\0")[:-1]]


def code_blocks(page: Path) -> list[str]:
    """The Python examples of a page of the manual."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
