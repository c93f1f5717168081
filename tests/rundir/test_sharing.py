"""Who may read a run: its owner, or a group of users too; and nobody else, whatever the shell's umask is."""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from outputs import a_raw_config, made_up, write_npz
from rundirs import a_manifest, make_run

from mia_batch.cli import main
from mia_batch.errors import InputError
from mia_batch.process.exit_codes import run_main, run_stoppable
from mia_batch.rundir.identity import verdict_identity
from mia_batch.rundir.manifest import read_manifest
from mia_batch.rundir.paths import RunPaths, refuse_links
from mia_batch.rundir.sharing import share_run
from mia_batch.stages.attack import run_attack_stage
from mia_batch.stages.import_outputs import run_import_stage
from mia_batch.stages.reduce import reduce

GROUP, MEMBERS, STRANGER = "miatestg", ("miatest1", "miatest2"), "miatest3"
AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("useradd"), reason="needs to make users"
)


@pytest.fixture
def users() -> Iterator[None]:
    """Two users of one group, and a third of none."""
    subprocess.run(["groupadd", "-f", GROUP], check=True)
    for user in (*MEMBERS, STRANGER):
        groups = ["-G", GROUP] if user in MEMBERS else []
        subprocess.run(["useradd", "-M", "-N", "-g", "nogroup", *groups, user], check=True)
    yield
    for user in (*MEMBERS, STRANGER):
        subprocess.run(["userdel", user], check=True)
    subprocess.run(["groupdel", GROUP], check=True)


def audit(folder: Path, out: Path) -> int:
    """Import, attack and reduce, in this process."""
    known = {"config": str(folder / "c.yaml"), "out": str(out), "checkpoint": None, "changes": []}
    known |= {"verbose": False, "quiet": False}
    args = argparse.Namespace(**known, junit=None, method=None, prepared=None)
    codes = [run_stoppable(stage, args) for stage in (run_import_stage, run_attack_stage)]
    return max(codes) or run_main(lambda: reduce(args))


def as_user(user: str, work: Callable[[], int]) -> tuple[int, str]:
    """What some work of the product's ends with and says, of a user whose umask lets everybody in.

    A child that has loaded everything: the interpreter may lie where others cannot pass.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
            who = pwd.getpwnam(user)
            os.initgroups(user, who.pw_gid)
            os.setresgid(*(who.pw_gid,) * 3)
            os.setresuid(*(who.pw_uid,) * 3)
            os.umask(0)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(theirs)
    with open(ours, encoding="utf-8") as file:
        said = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def modes_with(folder: Path, bits: str) -> list[str]:
    """What lies there that has any of these bits."""
    command = ["find", str(folder), "-mindepth", "1", "-perm", bits, "!", "-type", "l"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def place(tmp_path: Path, users: None) -> Iterator[Path]:
    """A folder that all users can read, with an audit's config and outputs; what audits load is loaded."""
    before = os.umask(0o077)
    with tempfile.TemporaryDirectory(prefix="miatest", dir="/tmp") as folder:
        here = Path(folder)
        here.chmod(0o755)
        write_npz(here / "outputs", made_up(60)).chmod(0o644)
        write_config(here)
        warmed = audit(here, tmp_path / "warm")
        shown = main(["status", str(tmp_path / "warm")]), main(["history", str(tmp_path)])
        assert {warmed, *shown} <= {0, 3, 4}
        yield here
    os.umask(before)


def write_config(folder: Path, **report: str) -> None:
    raw = a_raw_config(str(folder / "outputs.npz")) | ({"report": report} if report else {})
    (folder / "c.yaml").write_text(yaml.safe_dump(raw))
    (folder / "c.yaml").chmod(0o644)


def folder_of(user: str, path: Path, group: str = "root", mode: int = 0o700) -> Path:
    path.mkdir()
    shutil.chown(path, user, group)
    path.chmod(mode)
    return path


@AS_ROOT
def test_two_users_of_one_group_read_one_audit_and_a_third_does_not(place: Path) -> None:
    write_config(place, group=GROUP)
    runs = folder_of(MEMBERS[0], place / "runs", GROUP, 0o2750)
    code, said = as_user(MEMBERS[0], lambda: audit(place, runs / "one"))
    assert code in (0, 3, 4), said
    assert modes_with(runs, "/o=rwx,g=w") == []
    for command in (["status", str(runs / "one")], ["history", str(runs)]):
        code, said = as_user(MEMBERS[1], lambda command=command: main(command))  # type: ignore[misc]
        assert code in (0, 3, 4), said
        assert "damaged" not in said
    code, said = as_user(STRANGER, lambda: main(["status", str(runs / "one")]))
    assert (code, len(said.splitlines())) == (2, 1), said


@AS_ROOT
def test_without_the_key_a_run_is_for_its_owner_alone(place: Path) -> None:
    runs = folder_of(MEMBERS[0], place / "runs")
    init = ["init", "--kind", "tabular", "--out", str(runs / "init")]
    for work in (lambda: audit(place, runs / "one"), lambda: main(init)):
        code, said = as_user(MEMBERS[0], work)
        assert code in (0, 3, 4), said
    assert modes_with(runs, "/go=rwx") == []
    assert len(modes_with(runs, "/u=rwx")) > 10


def test_what_is_there_before_is_opened_too_and_links_are_left(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    paths, manifest = RunPaths(tmp_path / "run"), a_manifest(**{"report.group": group})
    paths.create()
    (tmp_path / "elsewhere").write_text("private")
    (tmp_path / "elsewhere").chmod(0o600)
    (paths.root / "old.log").touch(0o600)
    (paths.root / "link").symlink_to(tmp_path / "elsewhere")
    before = os.umask(0o077)
    try:
        share_run(paths.root, manifest)
        (paths.root / "new").touch()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths.root.iterdir()}
    assert modes == {"attacks": 0o2750, "old.log": 0o640, "new": 0o640, "link": 0o600}
    with pytest.raises(InputError, match=r"report\.group: must be a group of users that you are in, got 'nosuchgroup'"):
        share_run(paths.root, a_manifest(**{"report.group": "nosuchgroup"}))


def test_the_group_is_of_no_identity() -> None:
    assert verdict_identity(a_manifest(**{"report.group": "a"})) == verdict_identity(a_manifest())


def test_links_within_a_run_are_refused_and_the_directory_may_be_one(tmp_path: Path) -> None:
    paths = make_run(RunPaths(tmp_path / "run"), a_manifest())
    (tmp_path / "alias").symlink_to(paths.root)
    assert read_manifest(RunPaths(tmp_path / "alias")) is not None
    for name in ("features.h5", "attacks/lr.h5"):
        (paths.root / name).symlink_to("/etc/hostname")
        with pytest.raises(InputError, match=f"{name}: must be no link: those within a run directory are not followed"):
            read_manifest(paths)
        (paths.root / name).unlink()
    (paths.root / "attacks").rmdir()
    (paths.root / "attacks").symlink_to(tmp_path)
    with pytest.raises(InputError, match="attacks: must be no link"):
        refuse_links(paths)
