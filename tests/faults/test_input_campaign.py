"""A short form of `make faults`: every file that is read, damaged a few times, and what may lie in its place."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from input_campaign import BAD, Outcome, campaign, in_child, judged
from input_roles import ROLES, Role, read_config, write_config
from mutators import MUTATORS, mutated

from mia_batch.errors import InputError

SEED, N_CASES = 1, 3
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_damaged_file_is_one_line_or_says_the_same(role: Role) -> None:
    counts, bad = campaign([role], N_CASES, SEED)
    assert not [(case.damage, case.outcome) for case in bad]
    assert counts[role.name].total() > N_CASES


def parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of a config is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, item in items for below in parts(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_at_any_key_of_a_config_is_taken_or_refused_in_lines(tmp_path: Path, data: st.DataObject) -> None:
    write_config(tmp_path)
    path = tmp_path / "config.yaml"
    raw = yaml.safe_load(path.read_text())
    changed = replaced(raw, data.draw(st.sampled_from(parts(raw))), data.draw(VALUES))
    path.write_text(yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    problems: tuple[str, ...] = ()
    try:
        read_config(tmp_path)
    except InputError as error:
        problems = error.problems
    assert all(line.startswith(str(path)) and len(line) < 2000 for line in problems)


def test_the_campaign_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """Each bad outcome, of a reader that is made to have it."""
    (tmp_path / "a").write_text("good")

    def of(read: Any) -> Outcome:
        return judged(in_child(Role("made up", "a", lambda _: None, read), tmp_path), good, is_ours=True)

    good = in_child(Role("good", "a", lambda _: None, lambda _: "good"), tmp_path)
    assert of(lambda _: "good").kind == "same"
    assert of(lambda _: "other").kind == "different"
    assert of(lambda _: 1 / 0).kind == "traceback"
    assert of(lambda _: bytearray(300 << 20) and "good").kind == "memory"
    assert of(lambda _: sum(range(10**8)) and "good").kind == "slow"
    assert of(lambda _: refuse("a: must be b")).kind == "refused"
    assert of(lambda _: print("mia-batch: " + "a" * 5000, file=sys.stderr) or refuse("b")).kind == "unclear"
    assert of(lambda _: refuse("a\x1b[2J")).text == "mia-batch: a\\x1b[2J\n"


def test_memory_is_what_a_reading_takes_beyond_what_its_parent_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("good")

    def of(megabytes: int) -> Outcome:
        return in_child(Role("made up", "a", lambda _: None, lambda _: (b"x" * (megabytes << 20))[:0]), tmp_path)

    held = b"x" * (300 << 20)
    good = of(0)
    del held
    assert good.memory < 50 << 20
    assert [judged(of(n), good, is_ours=True).kind for n in (80, 150)] == ["same", "memory"]


def refuse(line: str) -> None:
    raise InputError(line)


def test_a_seed_makes_the_same_damage_again() -> None:
    data = bytes(range(256)) * 4
    made = [mutated(data, random.Random(f"{SEED} {number}")) for number in range(50)]
    assert made == [mutated(data, random.Random(f"{SEED} {number}")) for number in range(50)]
    assert len({content for content, _ in made}) > 40
    for mutate in MUTATORS:
        for content in (b"", b"1", data):
            assert isinstance(mutate(content, random.Random(1)), bytes)
    assert "hang" in BAD
