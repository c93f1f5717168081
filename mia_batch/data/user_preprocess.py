"""A user's own preprocessing: a function that gets the inputs of a batch, as their source gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch.data.forms import TYPES
from mia_batch.errors import InputError, one_line
from mia_batch.inputs import Inputs
from mia_batch.settings.user_code import resolve

RTOL = 1e-4  # by which a row may differ with other rows beside it: matrix products do, in the last bits


@dataclass
class UserPreprocess:
    """Calls the function of `data.preprocess`, always with one number of rows, each at its own place.

    As with a network's batch, the last bits of a row may depend on its place, so that a row always has the same one.
    The other places hold copies of a row that is there. Nothing else may depend on the other rows: a mean of the batch
    would tell a batch of members from one of non-members. Nor may it draw at random, be it for few rows. Both are tried
    with the first two batches: the first row among copies of itself, and every row by a second call.

    Args:
        factory: `package.module:function` or `path/to/file.py:function`.
        batch_size: rows of a batch.
    """

    factory: str
    batch_size: int
    tried: int = 0
    _forms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        self._function = resolve(self.factory, "data.preprocess")

    def __call__(self, inputs: Inputs, places: NDArray[np.int64]) -> Inputs:
        """The network's inputs.

        Args:
            inputs: n rows, stacked.
            places: of each row in the batch, (n,), distinct, below `batch_size`.

        Raises:
            InputError: the function raised, or gives something else than an array, a tuple or a dictionary of arrays
                with as many rows, or other rows where other rows are beside them.
        """
        source = np.zeros(self.batch_size, dtype=np.int64)
        source[places] = np.arange(len(inputs))
        found = self._call(inputs, source)
        if self.tried < 2:
            self.tried += 1
            self._hold_to(found, self._call(inputs, source), places)
            if len(inputs) > 1:
                self._hold_to(found, self._call(inputs, np.zeros(self.batch_size, dtype=np.int64)), places[:1])
        self._hold(found)
        return replace(found, columns=tuple(np.asarray(column)[places] for column in found.columns))

    def _hold_to(self, found: Inputs, other: Inputs, places: NDArray[np.int64]) -> None:
        """Refuse another call's rows at these places that differ."""
        def values(column: Any) -> NDArray[np.float64]:
            return np.asarray(column)[places].astype(np.float64)

        same = _forms_of(other) == _forms_of(found) and all(
            np.allclose(values(theirs), values(ours), rtol=RTOL, atol=RTOL)
            for theirs, ours in zip(other.columns, found.columns, strict=True)
        )
        if not same:
            raise self._error("must give a row the same whatever rows are beside it, and each time", "other values")

    def _call(self, inputs: Inputs, source: NDArray[np.int64]) -> Inputs:
        given = replace(inputs, columns=tuple(np.asarray(column)[source] for column in inputs.columns))
        try:
            result = self._function(given.structure())
        except (Exception, SystemExit) as error:
            shown = ", ".join(f"{column.dtype} {column.shape}" for column in given.columns)  # type: ignore[union-attr]
            raise InputError(f"data.preprocess: {self.factory} called with {shown} raised {one_line(error)}") from error
        return self._checked(result)

    def _checked(self, result: Any) -> Inputs:
        rule = "must return an array, or a tuple or a dictionary of arrays"
        if isinstance(result, dict):
            if not result or not all(isinstance(name, str) for name in result):
                raise self._error(f"{rule} with names that are text", f"names {list(result)}")
            named = sorted(result.items())
            return Inputs("dict", *zip(*((name, self._column(value, name)) for name, value in named), strict=True))
        if isinstance(result, tuple) and result:
            columns = tuple(self._column(value, f"array {i}") for i, value in enumerate(result))
            return Inputs("tuple", tuple(f"array {i}" for i in range(len(columns))), columns)
        if isinstance(result, list | tuple) or not hasattr(result, "__array__"):
            raise self._error(rule, "an empty tuple" if isinstance(result, tuple) else type(result).__name__)
        return Inputs("array", ("array",), (self._column(result, "array"),))

    def _column(self, value: Any, name: str) -> NDArray[Any]:
        if isinstance(value, list | tuple | dict) or not hasattr(value, "__array__"):
            raise self._error(f"must return arrays, also as {name}", type(value).__name__)
        column = np.asarray(value)
        if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8 or isinstance(value, np.ma.MaskedArray):
            raise self._error(f"must return arrays of {TYPES}", f"{name} of {column.dtype}")
        if column.ndim < 1 or len(column) != self.batch_size or column.size == 0:
            raise self._error(f"must return a row for each of {self.batch_size}", f"{name} of shape {column.shape}")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise self._error("must return finite values", f"{column[~np.isfinite(column)][0]} in {name}")
        return column.astype(column.dtype.newbyteorder("="), copy=False)

    def _hold(self, found: Inputs) -> None:
        forms = _forms_of(found)
        if self._forms not in (None, forms):
            raise self._error(f"must return the same shapes and types for every batch, {self._forms}", f"{forms}")
        self._forms = forms

    def _error(self, rule: str, got: str) -> InputError:
        return InputError(f"data.preprocess: {self.factory} {rule}, got {got}")


def _forms_of(inputs: Inputs) -> tuple[Any, ...]:
    columns = [np.asarray(column) for column in inputs.columns]
    return tuple(
        (name, column.dtype.name, column.shape[1:]) for name, column in zip(inputs.names, columns, strict=True)
    )
