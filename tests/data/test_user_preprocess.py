"""A function of the user's own between a source and the network: what it gets, and what it may give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mia_batch.data.user_preprocess import UserPreprocess
from mia_batch.errors import InputError
from mia_batch.inputs import Inputs

CODE = """
import numpy as np

seen = []
count = iter(range(100))
def double(x):
    seen.append(x)
    return 2 * x
def in_place(x):
    x += 1
    return x
def swap(given): return given["b"], given["a"]
def named(given): return {"x": given[0], "n": given[1].sum(axis=1)}
def raises(x): raise KeyError("no such\\nthing")
def leaves(x): raise SystemExit(0)
def listed(x): return [x, x]
def nothing(x): return None
def empty(x): return ()
def text(x): return x.astype(str)
def short(x): return x[:-1]
def scalar(x): return np.float32(x.sum())
def infinite(x): return np.full((len(x), 2), np.inf)
def lists(x): return (x, x.tolist())
def unnamed(x): return {1: x}
def normalised(x): return x - x.mean()
def ranked(x): return x.argsort(axis=0)
def longest(x): return x[:, : int(x.max()) + 1]
def noise(x): return x + next(count)
def some(x):
    x = x.copy()
    x[3] *= (-1) ** next(count)
    return x
def types(x): return x.astype("f4") if next(count) < 6 else x
"""
N, BATCH = 5, 8


@pytest.fixture
def make(tmp_path: Path) -> Any:
    file = tmp_path / "change.py"
    file.write_text(CODE)
    return lambda function: UserPreprocess(f"{file}:{function}", BATCH)


def rows(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3))


def array(values: np.ndarray) -> Inputs:
    return Inputs("array", ("input",), (values,))


def test_rows_come_at_their_places_in_a_batch_of_one_size(make: Any) -> None:
    double, places = make("double"), np.array([6, 0, 1, 3, 7])
    (found,) = double(array(rows()), places).columns
    np.testing.assert_array_equal(found, 2 * rows())
    seen = double._function.__globals__["seen"]
    assert {given.shape for given in seen} == {(BATCH, 3)}
    np.testing.assert_array_equal(seen[0][places], rows())


def test_structures_go_in_and_come_out(make: Any) -> None:
    a, b = rows(), np.arange(2 * N).reshape(N, 2)
    swapped = make("swap")(Inputs("dict", ("a", "b"), (a, b)), np.arange(N))
    assert swapped.kind == "tuple"
    np.testing.assert_array_equal(swapped.columns[0], b)
    np.testing.assert_array_equal(swapped.columns[1], a)
    named = make("named")(Inputs("tuple", ("input[0]", "input[1]"), (a, b)), np.arange(N))
    assert (named.kind, named.names) == ("dict", ("n", "x"))
    np.testing.assert_array_equal(named.columns[0], b.sum(axis=1))


def test_a_function_may_change_what_it_gets(make: Any) -> None:
    values = rows()
    (found,) = make("in_place")(array(values), np.arange(N)).columns
    np.testing.assert_array_equal(found, rows() + 1)
    np.testing.assert_array_equal(values, rows())


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("raises", r"raises called with float64 \(8, 3\) raised KeyError: 'no such"),
        ("leaves", "raised SystemExit: 0"),
        ("listed", "must return an array, or a tuple or a dictionary of arrays, got list"),
        ("nothing", "dictionary of arrays, got NoneType"), ("empty", "dictionary of arrays, got an empty tuple"),
        ("text", "must return arrays of bool, integers, float16, float32 or float64, got array of <U"),
        ("short", r"must return a row for each of 8, got array of shape \(7, 3\)"),
        ("scalar", r"must return a row for each of 8, got array of shape \(\)"),
        ("infinite", "must return finite values, got inf in array"), ("lists", "arrays, also as array 1, got list"),
        ("unnamed", r"with names that are text, got names \[1\]"),
        ("normalised", "must give a row the same whatever rows are beside it, and each time, got other values"),
        ("ranked", "must give a row the same whatever rows are beside it"),
        ("longest", "must give a row the same whatever rows are beside it"),
        ("some", "must give a row the same whatever rows are beside it, and each time"),
        ("noise", "must give a row the same whatever rows are beside it, and each time"),
        ("gone", "has no function 'gone'; it has double"),
    ],
)
def test_what_is_refused_is_one_line(make: Any, function: str, rule: str) -> None:
    with pytest.raises(InputError, match=f"^data.preprocess: .*{rule}") as caught:
        make(function)(array(rows()), np.arange(N))
    assert len(caught.value.problems) == 1


def test_types_that_change_from_batch_to_batch(make: Any) -> None:
    change = make("types")
    for _ in range(2):
        change(array(rows()), np.arange(N))
    with pytest.raises(InputError, match="must return the same shapes and types for every batch"):
        change(array(rows()), np.arange(N))
