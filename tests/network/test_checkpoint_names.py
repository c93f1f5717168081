"""Which entry is which parameter: prefixes, renaming, parts of distributed checkpoints; by names and shapes alone."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mia_batch.errors import InputError
from mia_batch.network.checkpoint_entry import TEXT, Entry, Stated
from mia_batch.network.checkpoint_names import Wanted, find_parameters
from mia_batch.network.rename import Rename, read_rename
from mia_batch.settings.yaml_text import MOST_BYTES

Shape = tuple[int, ...]
NETWORK: dict[str, Shape] = {
    "conv.weight": (8, 3, 3, 3), "norm.gamma": (8,), "head.weight": (10, 8), "head.bias": (10,),
}
PATH = Path("run/net.ckpt")


def stated(shapes: Mapping[str, Shape], **more: Any) -> Stated:
    return Stated({name: Entry(name, "Float32", dims, 0) for name, dims in shapes.items()}, **more)


def under(prefix: str, shapes: Mapping[str, Shape] = NETWORK) -> dict[str, Shape]:
    return {prefix + name: dims for name, dims in shapes.items()}


def refused(shapes: Mapping[str, Shape], *, path: Path = PATH, prefix: str = "", rename: Rename | None = None,
            **more: Any) -> tuple[str, ...]:  # fmt: skip
    with pytest.raises(InputError) as caught:
        find_parameters(stated(shapes, **more), Wanted(NETWORK, prefix, rename), path)
    assert all(len(problem.splitlines()) == 1 for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    "prefix", ["network.", "_backbone.", "module.", "network._backbone.", "net._backbone.0.", "ema.", "ema.network."]
)
def test_a_prefix_is_proposed_and_chosen(prefix: str) -> None:
    shapes = under(prefix)
    (line,) = refused(shapes)
    assert line == (
        f"run/net.ckpt: model.checkpoint: must have the network's parameters, which are all there under a prefix; "
        f"write model.prefix: {prefix}"
    )
    found = find_parameters(stated(shapes), Wanted(NETWORK, prefix), PATH)
    assert found == {name: prefix + name for name in NETWORK}
    assert list(found) == list(NETWORK)


def test_of_two_prefixes_both_are_proposed() -> None:
    (line,) = refused(under("network.") | under("ema.network."))
    assert line.endswith("write model.prefix: network. or model.prefix: ema.network.")


def test_another_prefix_than_the_one_given_is_proposed() -> None:
    (line,) = refused(under("network.") | {"net.conv.weight": (8, 3, 3, 3)}, prefix="net.")
    assert line.endswith("write model.prefix: network.")


@pytest.mark.parametrize("prefix", ["network.", "net._backbone."])
def test_a_prefix_that_the_networks_own_names_have(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(InputError) as caught:
        find_parameters(stated(NETWORK), Wanted(under(prefix)), PATH)
    advice = f'{{"*": "{prefix}*"}}'
    assert str(caught.value).endswith(f"which are there without {prefix}; write {advice} into a model.rename file")
    state = under("moments.") | {"global_step": (1,)}
    found = renamed(rules(tmp_path, advice), NETWORK | state, under(prefix))
    assert found == {prefix + name: name for name in NETWORK}


def test_optimizer_state_is_no_prefix() -> None:
    problems = refused(under("moments."))
    assert "missing: conv.weight" in problems[0]
    assert "model.prefix" not in "".join(problems)


@pytest.mark.parametrize("shapes", [under("network.", {**NETWORK, "head.bias": (9,)}), {"network.head.bias": (10,)}])
def test_no_prefix_is_proposed_that_does_not_hold_all(shapes: dict[str, Shape]) -> None:
    assert "model.prefix" not in "".join(refused(shapes))


def test_plain_names_win_over_moving_averages() -> None:
    for both in (NETWORK | under("ema."), under("ema.") | NETWORK):
        assert find_parameters(stated(both), Wanted(NETWORK), PATH) == {name: name for name in NETWORK}
        found = find_parameters(stated(both), Wanted(NETWORK, "ema."), PATH)
        assert found == {name: f"ema.{name}" for name in NETWORK}


def test_what_is_beside_the_prefix(caplog: pytest.LogCaptureFixture) -> None:
    """State of the optimizer, by the names of the network or of the file, goes without a word; the rest is named."""
    state = under("moments.network.") | {"momentum": (), "global_step": (1,), "learning_rate": ()}
    with caplog.at_level(logging.WARNING):
        find_parameters(stated(under("network.") | state), Wanted(NETWORK, "network."), PATH)
        find_parameters(stated(under("network.") | under("moments.")), Wanted(NETWORK, "network."), PATH)
    assert not caplog.records
    shapes = under("network.") | {"teacher.weight": (8, 8), "loss.centres": (10, 8)}
    with caplog.at_level(logging.WARNING):
        find_parameters(stated(shapes), Wanted(NETWORK, "network."), PATH)
    assert caplog.messages == ["run/net.ckpt: model.prefix: leaves out other parameters: teacher.weight, loss.centres"]


def test_what_has_the_prefix_must_be_the_networks() -> None:
    (line,) = refused(under("network.") | {"network.extra.weight": (3,)}, prefix="network.")
    assert line.endswith("must have no other parameters, unexpected: network.extra.weight")


def test_a_prefix_that_nothing_has() -> None:
    rule = "model.prefix: must be what names in run/net.ckpt begin with, got 'net.'; they begin with"
    assert refused({"other.weight": (3,)}, prefix="net.") == (f"{rule} other.",)
    (line,) = refused(under("adam.network.") | under("adam.moment1.network."), prefix="net.")
    assert line == f"{rule} adam.; write model.prefix: adam.network."


def test_text_is_no_parameter() -> None:
    entries = {**stated(NETWORK).entries, "note": Entry("note", TEXT, (4,), 16)}
    assert len(find_parameters(Stated(entries), Wanted(NETWORK), PATH)) == 4


# --- parts of distributed checkpoints --------------------------------------------------------------------------------

HALF = {"conv.weight": (4, 3, 3, 3), "norm.gamma": (4,), "head.weight": (10, 8), "head.bias": (10,)}


@pytest.mark.parametrize("path", ["rank_3/net.ckpt", "run/net_rank_3.ckpt", "run/net-rank3.safetensors"])
@pytest.mark.parametrize("shapes", [HALF, {"head.weight": (10, 8), "head.bias": (10,)}])
def test_one_ranks_part_by_its_path(path: str, shapes: dict[str, Shape]) -> None:
    problems = refused(shapes, path=Path(path))
    assert re.search(r"must be whole, got the part of one rank, by its path \(rank_?3\); merge ", problems[-1])


def test_shapes_that_are_all_the_same_fraction() -> None:
    problems = refused(HALF)
    assert problems[0].endswith("must have the network's shapes: conv.weight 4x3x3x3 for 8x3x3x3, norm.gamma 4 for 8")
    assert "must be whole, got 1/2 of each of these: if it is the part of one rank, merge the files" in problems[1]
    assert len(refused(HALF | {"head.weight": (10, 2)})) == 1
    assert len(refused(HALF | {"norm.gamma": (5,)})) == 1
    assert len(refused(NETWORK | {"head.weight": (20, 8)})) == 1


def test_a_file_that_says_itself_that_it_is_a_part() -> None:
    whole = find_parameters(stated(NETWORK, is_part=True), Wanted(NETWORK), PATH)
    assert len(whole) == 4
    assert "saved with remove_redundancy; merge" in refused({"head.bias": (10,)}, is_part=True)[-1]


def test_whole_files_in_ranks_folders_are_taken() -> None:
    assert len(find_parameters(stated(NETWORK), Wanted(NETWORK), Path("rank_0/net.ckpt"))) == 4


# --- renaming --------------------------------------------------------------------------------------------------------

TORCH = {
    "features.0.weight": (8, 3, 3, 3), "features.1.weight": (8,), "features.1.bias": (8,),
    "features.1.running_mean": (8,), "features.1.running_var": (8,), "features.1.num_batches_tracked": (),
    "embed.weight": (5, 4), "fc.weight": (10, 8), "fc.bias": (10,),
}
MINDSPORE = {
    "layers.0.weight": (8, 3, 3, 3), "layers.1.gamma": (8,), "layers.1.beta": (8,), "layers.1.moving_mean": (8,),
    "layers.1.moving_variance": (8,), "embed.embedding_table": (5, 4), "fc.weight": (10, 8), "fc.bias": (10,),
}
RULES = '''
"features.*": "layers.*"
"*.weight": ["*.gamma", "*.embedding_table"]
"*.bias": "*.beta"
"*.running_mean": "*.moving_mean"
"*.running_var": "*.moving_variance"
"*.num_batches_tracked": null
'''


def rules(tmp_path: Path, text: str, name: str = "names.yaml") -> Rename:
    (tmp_path / name).write_text(text)
    return read_rename(tmp_path / name)


def renamed(
    rename: Rename, shapes: Mapping[str, Shape], wanted: Mapping[str, Shape], prefix: str = ""
) -> dict[str, str]:
    return find_parameters(stated(shapes, ordered=False), Wanted(wanted, prefix, rename), PATH)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorchs_names_by_a_few_rules(tmp_path: Path, prefix: str) -> None:
    found = renamed(rules(tmp_path, RULES), under(prefix, TORCH), MINDSPORE, prefix)
    assert found == {
        "layers.0.weight": f"{prefix}features.0.weight", "layers.1.gamma": f"{prefix}features.1.weight",
        "layers.1.beta": f"{prefix}features.1.bias", "layers.1.moving_mean": f"{prefix}features.1.running_mean",
        "layers.1.moving_variance": f"{prefix}features.1.running_var",
        "embed.embedding_table": f"{prefix}embed.weight", "fc.weight": f"{prefix}fc.weight",
        "fc.bias": f"{prefix}fc.bias",
    }


def test_names_are_changed_all_at_once_so_that_two_can_be_swapped(tmp_path: Path) -> None:
    shapes = {"a.weight": (2,), "b.weight": (2,)}
    found = renamed(rules(tmp_path, "{a.weight: b.weight, b.weight: a.weight}"), shapes, shapes)
    assert found == {"a.weight": "b.weight", "b.weight": "a.weight"}


def test_json_is_read_too(tmp_path: Path) -> None:
    found = rules(tmp_path, '{\n\t"a.weight": "b.weight",\n\t"c": null\n}', "names.json")
    assert found.exact == {"a.weight": "b.weight", "c": None}


def test_optimizer_state_goes_by_the_names_in_the_file(tmp_path: Path) -> None:
    state = under("moments.", {"fc.weight": (10, 8), "fc.bias": (10,)})
    rename = rules(tmp_path, '"fc.*": "head.*"')
    shapes = {"fc.weight": (10, 8), "fc.bias": (10,)}
    assert len(renamed(rename, shapes | state, {"head.weight": (10, 8), "head.bias": (10,)})) == 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("{x.weight: head.weight}", ["x.weight: must be an entry of the checkpoint"]),
        ("{fc.weight: head.wait}", ["fc.weight: must become a parameter of the network, got head.wait"]),
        (
            "{fc.weight: head.weight, fc.bias: head.weight}",
            ["head.weight: must come from one entry, got fc.weight and fc.bias"],
        ),
        ('"*.*": x', ["*.*: must have one * at most, got 2"]),
        ('"fc.*": head.weight', ["fc.*: must have as many * as what it becomes, got head.weight"]),
        ("fc.weight: head.*", ["fc.weight: must have as many * as what it becomes, got head.*"]),
        ("fc.weight: [head.weight]", ["fc.weight: must become one parameter; a list of names goes with *"]),
        ('"fc.*": []', ["fc.*: must become one parameter; a list of names goes with *"]),
        ('"fc.*": [null]', ["fc.*: must become a parameter's name, or null to leave it out, got a NoneType"]),
        ("fc.weight: 3", ["fc.weight: must become a parameter's name, or null to leave it out, got a int"]),
        ("fc.weight: {a: b}", ["fc.weight: must become a parameter's name, or null to leave it out, got a dict"]),
        ("fc.weight: ''", ["fc.weight: must become a parameter's name, or null to leave it out, got a str"]),
        ("3: head.weight", ["3: must be text, the name of an entry"]),
        (
            '{"fc.*": "head.*", "*.weight": "*.gamma"}',
            ["fc.weight: must become one parameter, could be head.weight or head.gamma; name it without *"],
        ),
        (
            '{"fc.*": ["head.*", "tail.*"]}',
            [f"fc.{w}: must become one parameter, could be head.{w} or tail.{w}; name it without *"
             for w in ("weight", "bias")],
        ),
    ],
)  # fmt: skip
def test_rules_that_cannot_be(tmp_path: Path, text: str, lines: list[str]) -> None:
    wanted = {"head.weight": (10, 8), "head.gamma": (10, 8), "head.bias": (10,), "tail.weight": (1,), "tail.bias": (1,)}
    with pytest.raises(InputError) as caught:
        renamed(rules(tmp_path, text), {"fc.weight": (10, 8), "fc.bias": (10,)}, wanted)
    assert caught.value.problems[: len(lines)] == tuple(f"{tmp_path}/names.yaml: model.rename: {x}" for x in lines)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.yaml", b"a: b\na: c\n", "key 'a' is given twice"), ("a.yaml", b"- a\n", "must be a mapping"),
        ("a.yaml", b"a: \xff", "must be YAML text in UTF-8"), ("a.yaml", b"a: [", "YAML"),
        ("a.json", b'{"a": "b", "a": "c"}', "key 'a' is given twice"), ("a.json", b"[]", "must be a mapping of names"),
        ("a.json", b"{", "must be JSON"), ("a.json", b"[" * 100_000, "must be JSON"),
        ("a.json", b"\xff", "must be JSON"),
        ("a.yaml", b"#" * (MOST_BYTES + 1), f"got: more than {MOST_BYTES} bytes"),
        ("a.yaml", b"\n".join(b'"%d*": "*"' % i for i in range(101)), r"at most 100 names with \*, got 101"),
        ("a.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "a list of names goes with"),
    ],
)
def test_files_that_hold_no_rules(tmp_path: Path, name: str, content: bytes, rule: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rule) as caught:
        read_rename(tmp_path / name)
    for line in caught.value.problems:
        assert len(line.splitlines()) == 1
        assert line.startswith(f"{tmp_path}/{name}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.json"):
        with pytest.raises(InputError, match=r"must be a .*file.*, got: No such file"):
            read_rename(tmp_path / name)


def test_rules_that_multiply_names_end(tmp_path: Path) -> None:
    text = "\n".join(f'"{"a" * i}*": ["{"a" * i}*x", "{"a" * i}*y"]' for i in range(30))
    with pytest.raises(InputError, match=r"a{40}: must become one parameter, could be thousands"):
        renamed(rules(tmp_path, text), {"a" * 40: (1,)}, {"b": (1,)})


def test_a_number_that_may_be_a_weight_is_refused_with_how_to_leave_it_out(tmp_path: Path) -> None:
    shapes = NETWORK | {"accuracy": ()}
    (line,) = refused(shapes, ordered=False)
    advice = "{accuracy: null}"
    assert line.endswith(f"unexpected: accuracy; if accuracy is no weight, write {advice} into a model.rename file")
    assert len(renamed(rules(tmp_path, advice), shapes, NETWORK)) == 4


def test_a_hostile_file_takes_no_time() -> None:
    """As many entries, and among them optimizers, as a file may have."""
    shapes = {f"{'a.' * (i % 50)}{i}.global_step": (1,) for i in range(20_000)}
    shapes |= {f"moments.{i}.conv.weight": (8, 3, 3, 3) for i in range(20_000)}
    started = time.perf_counter()
    assert "20000 more" not in "".join(refused(NETWORK | shapes))
    assert time.perf_counter() - started < 30


def test_what_is_left_out_is_not_weighed(tmp_path: Path) -> None:
    rename = rules(tmp_path, '{teacher.weight: null, "loss.*": null}')
    shapes = NETWORK | {"teacher.weight": (3,), "loss.a": (3,), "loss.b.c": (4,)}
    assert renamed(rename, shapes, NETWORK) == {name: name for name in NETWORK}
