"""What a caller hands over, as checked NumPy arrays: arrays, lists, and tensors of frameworks that are not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.equal_outputs import row_keys, same_samples
from mia_batch.data.forms import image_fault
from mia_batch.data.outputs import MOST_LABELS, MOST_SLICES
from mia_batch.errors import InputError, one_line
from mia_batch.inputs import NO_GROUP, Inputs, describe_inputs
from mia_batch.rundir.features import IMPORTED, Features
from mia_batch.rundir.features import OUTPUTS as BY_OUTPUTS
from mia_batch.settings.schema import CLASS

NAMES = ("logits", "probabilities", "losses", "labels", "groups", "inputs")  # of a side, or of all samples
BOTH = ("member", "nonmember")  # arguments of what is known of a side
KINDS = {"logits": "logits", "probabilities": "probabilities", "losses": "loss"}  # of outputs, by argument


@dataclass(frozen=True)
class AuditRows:
    """Samples of an audit, and which of `KINDS` their logits are of."""

    features: Features
    output: str


def as_array(value: Any, field: str) -> NDArray[Any]:
    """`value` in NumPy: an array, nested lists, a tensor of MindSpore (`asnumpy`) or of PyTorch's kind (`numpy`).

    Raises:
        InputError: it cannot be one array of numbers or words, or has values that are masked.
    """
    try:
        array = np.asarray(_in_memory(value))
    except Exception as error:  # frameworks raise many kinds
        raise InputError(f"{field}: must be an array, got {type(value).__name__}: {one_line(error)}") from error
    if array.dtype == object and array.size and all(isinstance(each, str) for each in array.flat):
        array = array.astype(str)  # as pandas keeps words
    if array.dtype.kind not in "biufSU":
        raise InputError(f"{field}: must be an array of numbers or words, got {type(value).__name__} of {array.dtype}")
    if np.ma.is_masked(value):
        raise InputError(f"{field}: must have all its values, got some that are masked")
    return array


def _in_memory(value: Any) -> Any:
    """A tensor's values, off its device and without its gradient; anything else as it is."""
    if hasattr(value, "asnumpy"):
        return value.asnumpy()
    if not hasattr(value, "numpy"):
        return value
    for step in ("detach", "cpu"):
        value = getattr(value, step)() if hasattr(value, step) else value
    try:
        return value.numpy()
    except TypeError:  # NumPy has no bfloat16
        return value.float().numpy()


def read_rows(given: Mapping[str, Any], member: Any, nonmember: Any) -> AuditRows:
    """The samples of an audit.

    Args:
        given: of `NAMES`, of all samples; None for what is not given.
        member: membership of each of them; or, with `nonmember`, what is known of the members: (logits, labels) or a
            mapping with some of `NAMES`.
        nonmember: what is known of the non-members, if `member` is of this form; else None.

    Raises:
        InputError: wrong forms, shapes, types or values.
    """
    columns = {name: value for name, value in given.items() if value is not None}
    if nonmember is None:
        if _is_side(member) and not columns:
            raise InputError("nonmember: must be given beside member=(logits, labels) or member={...}, got None")
        return _rows(_checked(columns, ""), _membership(member))
    if columns:
        raise InputError(
            f"{next(iter(columns))}: must be in member=... and nonmember=..., where these are the two sides, got both"
        )
    sides = [_checked(_side(value, name), f"{name}.") for name, value in zip(BOTH, (member, nonmember), strict=True)]
    joined, sizes = _joined(sides), [len(side["loss"]) for side in sides]
    _refuse_same(*sides)
    return _rows(joined, np.repeat([1, 0], sizes).astype(np.int8))


def _refuse_same(member: Mapping[str, Any], nonmember: Mapping[str, Any]) -> None:
    """Two sides of the same samples have nothing to tell apart."""
    loss, other = member["loss"], nonmember["loss"]
    if len(np.unique(loss)) < 2 or not np.array_equal(loss, other):  # outputs that are all equal say so by themselves
        return
    if all(np.array_equal(member[name], nonmember[name]) for name in ("logits", "labels") if name in member):
        what = f"{member['output']} and labels" if "labels" in member else member["output"]
        raise InputError(f"nonmember: must be other samples than member, got the same {what}")


def _is_side(member: Any) -> bool:
    """Whether it is of the form that `member` has beside `nonmember`."""
    is_pair = isinstance(member, tuple | list) and len(member) == 2 and not any(map(np.isscalar, member))
    return is_pair or isinstance(member, Mapping)


def _side(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        if unknown := [str(key) for key in value if key not in NAMES]:
            raise InputError(f"{name}.{unknown[0]}: unknown name; valid names: {', '.join(NAMES)}")
        return {key: column for key, column in value.items() if column is not None}
    if isinstance(value, tuple | list) and len(value) == 2:
        return dict(zip(("logits", "labels"), value, strict=True))
    got = f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
    raise InputError(f"{name}: must be (logits, labels) or a mapping with {', '.join(NAMES)}, got {got}")


def _checked(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arrays of one length: logits (of probabilities too) and labels, or losses; more if it is given."""
    output = [name for name in KINDS if name in columns]
    if len(output) != 1:
        got = "both" if output else "neither"
        raise InputError(f"{where}logits: must be given, or probabilities or losses instead, got {got}")
    found = _losses(columns, where) if output == ["losses"] else _outputs(columns, output[0], where)
    n = len(found["loss"])
    if "groups" in columns:
        found["groups"], found["named by"] = _groups(columns["groups"], f"{where}groups", n)
    if "inputs" in columns:
        found["inputs"], found["kind"] = _inputs(columns["inputs"], f"{where}inputs", n)
    return found


def _outputs(columns: Mapping[str, Any], output: str, where: str) -> dict[str, Any]:
    if "labels" not in columns:
        raise InputError(f"{where}labels: must be given beside {output}")
    logits = as_logits(columns[output], output, where)
    labels = as_array(columns["labels"], f"{where}labels")
    try:
        loss = signals.loss(logits, labels)
    except ValueError as error:
        raise InputError(f"{where}{error}") from error
    return {"output": output, "logits": logits, "loss": loss, "labels": labels.astype(np.int32)}


def _losses(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Labels may be missing: nothing but the baseline without the model asks for them."""
    loss = as_array(columns["losses"], f"{where}losses")
    if loss.ndim != 1 or loss.dtype.kind not in "fiu":
        raise InputError(f"{where}losses: must be numbers of shape (samples,), got {loss.dtype} {loss.shape}")
    loss = loss.astype(np.float64)
    if not ((loss >= 0) & np.isfinite(loss)).all():
        row = int(np.flatnonzero(~((loss >= 0) & np.isfinite(loss)))[0])
        raise InputError(f"{where}losses: must be finite and at least 0, got {loss[row]} at sample {row}")
    found = {"output": "losses", "loss": loss}
    if "labels" not in columns:
        return found
    labels = as_array(columns["labels"], f"{where}labels")
    if labels.shape != loss.shape or labels.dtype.kind not in "iu":
        rule = f"must be integers of shape ({len(loss)},), to match losses"
        raise InputError(f"{where}labels: {rule}, got {labels.dtype} {labels.shape}")
    if (wrong := np.flatnonzero((labels < 0) | (labels > MOST_LABELS))).size:
        got = f"{labels[wrong[0]]} at sample {wrong[0]}"
        raise InputError(f"{where}labels: must be in 0..{MOST_LABELS}, got {got}")
    return found | {"labels": labels.astype(np.int32)}


def as_logits(value: Any, name: str, where: str) -> NDArray[np.float32]:
    """Logits of two columns or more: one logit z is 0 and z, one probability p is 1 - p and p.

    Args:
        value: shape (n_samples, n_classes), or (n_samples,).
        name: logits or probabilities, which they are.
        where: what stands before the name in messages.

    Raises:
        InputError: wrong shape, type or values.
    """
    array = as_array(value, f"{where}{name}")
    shape, array = array.shape, array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "fiu":
        rule = "must be numbers of shape (samples, classes), or (samples,) of two classes"
        raise InputError(f"{where}{name}: {rule}, got {array.dtype} {shape}")
    if name == "logits":
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            z = array.astype(np.float32)  # as a network gives them, and as features.h5 keeps them
        return signals.two_classes(z, probabilities=False) if z.shape[1] == 1 else z
    p = array.astype(np.float64)
    try:
        return signals.float32_logits(signals.two_classes(p, probabilities=True) if p.shape[1] == 1 else p)
    except ValueError as error:
        raise InputError(f"{where}{error}") from error


def _groups(value: Any, field: str, n: int) -> tuple[NDArray[Any], str]:
    """The name of each sample's group, (n,), and whether names are integers or words."""
    names = as_array(value, field)
    if names.shape != (n,) or names.dtype.kind not in "iuSU":
        raise InputError(f"{field}: must be integers or words of shape ({n},), got {names.dtype} {names.shape}")
    if names.dtype.kind == "S":
        return np.char.decode(names, "utf-8", "replace"), "words"
    if names.dtype == np.uint64:  # beside int64 NumPy would round both
        return names.astype(str), "integers"
    return names, "integers" if names.dtype.kind in "iu" else "words"


def _inputs(value: Any, field: str, n: int) -> tuple[NDArray[Any], str]:
    """What is kept of each input, (n,) of `INPUT_DTYPE`, and what they are, image or array."""
    try:
        size = len(value)
    except TypeError:
        size = None
    if size != n:
        raise InputError(f"{field}: must be an array or a list of {n} arrays, got {size or type(value).__name__}")
    whole = None if isinstance(value, list | tuple) else as_array(value, field)
    inputs = [as_array(each, f"{field}[{i}]") for i, each in enumerate(value)] if whole is None else whole
    for i, each in enumerate(inputs):
        if not np.size(each) or np.asarray(each).dtype.kind not in "biuf":
            raise InputError(f"{field}[{i}]: must be numbers, got {np.asarray(each).dtype} of shape {np.shape(each)}")
    kind = "array" if any(image_fault(each) for each in inputs) else "image"
    return describe_inputs(Inputs(kind, ("input",), (inputs,))), kind


def _membership(member: Any) -> NDArray[np.int8]:
    if member is None:
        raise InputError("member: must be given: 1 for members, 0 for non-members; or member=... and nonmember=...")
    array = as_array(member, "member")
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        got = f"{array.dtype} of shape {array.shape}"
        if array.ndim == 1 and array.dtype.kind in "biuf":
            got = str(array[~np.isin(array, (0, 1))][0])
        raise InputError(f"member: must be 0 or 1 for each sample, got {got}")
    return array.astype(np.int8)


def _joined(sides: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Members, then non-members."""
    first, second = sides
    if first["output"] != second["output"]:
        raise InputError(f"nonmember: must have {first['output']} as member has, got {second['output']}")
    for name in first | second:
        if (name in first) != (name in second):
            raise InputError(f"{BOTH[name in first]}.{name}: must be given too, as it is of the other side")
    if "logits" in first and first["logits"].shape[1] != second["logits"].shape[1]:
        shapes = [side["logits"].shape[1] for side in sides]
        raise InputError(f"nonmember.{first['output']}: must have {shapes[0]} classes as member has, got {shapes[1]}")
    if first.get("kind") != second.get("kind"):
        rule = "must be images, (height, width, channels) of 0 to 255, on both sides or on neither"
        raise InputError(f"nonmember.inputs: {rule}, got {first['kind']} and {second['kind']}")
    if first.get("named by") != second.get("named by"):
        raise InputError(f"nonmember.groups: must be {first['named by']} as member's are, got {second['named by']}")
    alike = ("output", "kind", "named by")
    return {name: first[name] if name in alike else np.concatenate([first[name], second[name]]) for name in first}


def _rows(columns: Mapping[str, Any], member: NDArray[np.int8]) -> AuditRows:
    n, kept = len(columns["loss"]), columns.get("inputs")
    if len(member) != n:
        raise InputError(f"member: must have shape ({n},) to match {columns['output']}, got ({len(member)},)")
    if not np.array_equal(np.unique(member), [0, 1]):
        raise InputError(f"member: must have both 0 and 1, got {np.unique(member).tolist()}")
    logits, label = columns.get("logits"), columns.get("labels")
    attrs = {"schema": IMPORTED, "outputs": KINDS[columns["output"]]}
    if kept is None:
        loss = columns["loss"]
        content = same_samples(row_keys(loss if logits is None else logits, label), member, logits)
        attrs |= {} if content is None else {"content": BY_OUTPUTS}
    else:
        content = np.ascontiguousarray(kept["content"])
    features = features_of(
        member, columns["loss"], logits=logits, label=label,
        attrs=attrs, group=_codes(columns.get("groups"), n), group_name=_group_names(columns.get("groups")),
        content=content,
        statistics=None if kept is None else kept["statistics"].copy(),
    )  # fmt: skip
    return AuditRows(features, columns["output"])


def features_of(
    member: NDArray[np.int8], loss: NDArray[np.float64], *, attrs: dict[str, Any], **known: Any
) -> Features:
    """Rows of arrays, as those of features.h5; `known` is what else Features has."""
    n = len(member)
    given = {"logits": None, "label": None} | known
    return Features(
        sample_index=np.arange(n), split=np.broadcast_to("row", n), member=member, loss=loss, attrs=attrs, **given
    )


def slice_columns(slices: Any, n: int) -> dict[str, tuple[NDArray[np.int32], tuple[str, ...]]]:
    """Number of each sample's value, (n,), and the values, by name.

    Args:
        slices: by name a value for each sample, integers, words or truth values, (n,); `class`, which is no such
            array, is left out.
        n: samples.

    Raises:
        InputError: wrong forms, or too many values.
    """
    if not isinstance(slices, Mapping):
        rule = "must be a mapping of names to values, such as {'class': True, 'ward': wards}"
        raise InputError(f"slices: {rule}, got {type(slices).__name__}")
    found = {}
    for name, given in slices.items():
        if name == CLASS:
            if not isinstance(given, bool | np.bool_):
                raise InputError(f"slices.{CLASS}: must be True or False, got {type(given).__name__}")
            continue
        values = as_array(given, f"slices.{name}")
        if values.shape != (n,) or values.dtype.kind not in "biuSU":
            rule = f"must be integers or words of shape ({n},)"
            raise InputError(f"slices.{name}: {rule}, got {values.dtype} of shape {values.shape}")
        known, numbers = np.unique(values, return_inverse=True)
        if len(known) > MOST_SLICES:
            raise InputError(f"slices.{name}: must have at most {MOST_SLICES} different values, got {len(known)}")
        texts = np.char.decode(known, "utf-8", "replace") if known.dtype.kind == "S" else known.astype(np.str_)
        found[str(name)] = numbers.astype(np.int32), tuple(texts.tolist())
    return found


def _codes(names: NDArray[Any] | None, n: int) -> NDArray[np.int64] | None:
    """Number of each row's group; -1 is no group, as in the files of `data.group`."""
    if names is None:
        return None
    codes = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return np.where(names.astype(str) == str(NO_GROUP), NO_GROUP, codes)


def _group_names(names: NDArray[Any] | None) -> NDArray[np.bytes_] | None:
    """As features.h5 keeps them: nothing for -1."""
    if names is None:
        return None
    texts = names.astype(np.str_)
    return np.char.encode(np.where(texts == str(NO_GROUP), "", texts), "utf-8")
