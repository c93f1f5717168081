"""`make audit`: nothing that was not looked up passes for a package without an advisory."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest
from running import REPO

FINE = '{"name": "numpy", "version": "1.0", "vulns": []}'
SKIPPED = '{"name": "odd", "skip_reason": "is not on PyPI"}'
BAD = '{"name": "old", "version": "0.1", "vulns": [{"id": "X-1", "fix_versions": ["0.2"]}]}'


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("dependency_audit", str(REPO / ".ci" / "audit"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def run(audit: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> int:
    """The exit code, with a program in pip-audit's place."""
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["audit", str(program)])
    return int(audit.main())


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        (f"echo '{{\"dependencies\": [{FINE}]}}'", 0, "1 packages without an advisory\n"),
        (f"echo '{{\"dependencies\": [{FINE}, {SKIPPED}]}}'", 1, "odd: could not be looked up: is not on PyPI\n"),
        (f"echo '{{\"dependencies\": [{FINE}, {BAD}]}}'; exit 1", 1, "old 0.1: X-1, fixed in 0.2\n"),
        ("echo '{\"dependencies\": []}'", 1, "none of 0 packages was looked up\n"),
        (f"echo '{{\"dependencies\": [{SKIPPED}]}}'", 1, "none of 1 packages was looked up, of odd: is not on PyPI\n"),
        ("echo a >&2; echo 'Max retries exceeded' >&2; exit 1", 1, "pip-audit has not looked: Max retries exceeded\n"),
        ("exit 3", 1, "pip-audit has not looked: exit code 3 and no word\n"),
        ("echo '[]'", 1, "pip-audit has not looked: exit code 0 and no word\n"),
        ("exec sleep 60", 1, "pip-audit has not looked: no answer within 0.5 s\n"),
    ],
)
def test_one_line_says_what_is_known(
    audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    script: str, code: int, said: str,
) -> None:
    monkeypatch.setattr(audit, "SECONDS", 0.5 if "sleep" in script else 60)
    assert run(audit, tmp_path, monkeypatch, script) == code
    shown = capsys.readouterr()
    assert shown.out + shown.err == said


def test_without_pip_audit_nothing_passes(
    audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["audit", str(tmp_path / "gone")])
    assert audit.main() == 1
    assert capsys.readouterr().err == f"pip-audit has not looked: {tmp_path}/gone: No such file or directory\n"
