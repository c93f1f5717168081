"""The editors' schema takes what the validators take, and finds the mistakes that an editor can find."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sklearn
import yaml
from jsonschema import Draft202012Validator

from mia_batch.attacks.registry import ATTACKS
from mia_batch.commands.schema import text_of
from mia_batch.errors import InputError
from mia_batch.files import shipped
from mia_batch.report.summary import json_schema as summary_schema
from mia_batch.scheduler.site import Site, load_site, site_schema
from mia_batch.settings.json_schema import config_schema, documented, models_in
from mia_batch.settings.loading import load_config
from mia_batch.settings.schema import Config

CONFIGS = shipped("configs")
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def config() -> Draft202012Validator:
    return Draft202012Validator(config_schema())


@pytest.fixture(scope="module")
def site() -> Draft202012Validator:
    return Draft202012Validator(site_schema())


def read(path: Path) -> Any:
    """A file of YAML as editors read it: 1e-5 is text there, so that configs write 1.0e-5."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def faults(validator: Draft202012Validator, raw: Any) -> list[str]:
    return [error.json_path for error in validator.iter_errors(raw)]


@pytest.mark.parametrize("schema", [config_schema, site_schema, summary_schema])
def test_each_is_a_schema(schema: Callable[[], Mapping[str, Any]]) -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_right(config: Draft202012Validator, path: Path) -> None:
    assert faults(config, read(path)) == []


@pytest.mark.parametrize("path", sorted((CONFIGS / "sites").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sites_are_right(site: Draft202012Validator, path: Path) -> None:
    assert faults(site, read(path)) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_first_line_names_a_schema_that_is_there(path: Path) -> None:
    first, _, name = path.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")
    assert first == "# yaml-language-server: "
    assert (path.parent / name).is_file()


def without_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without what scikit-learn's version decides."""
    method = schema["$defs"].get("MethodConfig", {})
    for key in ("allOf", "$comment"):
        method.pop(key, None)
    return schema


def test_the_shipped_copies_are_these() -> None:
    copies = {"schema.json": config_schema(), "sites/schema.json": site_schema()}
    copies["summary.schema.json"] = summary_schema()
    for path, schema in ((CONFIGS / name, schema) for name, schema in copies.items()):
        text = path.read_text(encoding="utf-8")
        others = path != CONFIGS / "schema.json"  # in which scikit-learn's version decides nothing
        if others or f"scikit-learn {'.'.join(sklearn.__version__.split('.')[:2])}" in text:
            assert text == text_of(schema), "make schemas"
        assert without_parameters(json.loads(text)) == without_parameters(schema), "make schemas"


MODELS = sorted(models_in(Config) | models_in(Site), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_has_its_words(model: Any) -> None:
    _, words = documented(model)
    hidden = [name for name, field in model.model_fields.items() if field.exclude]
    assert set(words) - set(hidden) == set(model.model_fields) - set(hidden)
    assert len(MODELS) > 10


def test_every_key_of_the_schema_says_what_it_means(config: Draft202012Validator, site: Draft202012Validator) -> None:
    for validator in (config, site):
        for part in (validator.schema, *validator.schema["$defs"].values()):
            for name, key in part.get("properties", {}).items():
                assert key.get("description"), name


def test_names_come_from_the_registries(config: Draft202012Validator) -> None:
    parts = config.schema["$defs"]
    assert parts["MethodConfig"]["properties"]["method"]["enum"] == list(ATTACKS)
    assert "tpr_at_fpr" in parts["ReportConfig"]["properties"]["metrics"]["items"]["enum"]
    assert "epsilon" in parts["RuleConfig"]["properties"]["metric"]["enum"]
    assert parts["AttackConfig"]["properties"]["seed"]["default"] == 1


METHOD = "attack.methods"
RIGHT: list[dict[str, Any]] = [
    {}, {"gate": "tutorial"}, {"gate": {"threshold": 0.7}}, {"gate": {"rules": [{"metric": "auc", "above": 0.7}]}},
    {"data.members": [{"split": "train", "range": [0, 9]}]}, {"data.group": {"train": "g.txt", "test": "h.txt"}},
    {"data.group": None}, {"data.canaries": {"split": "train"}}, {"report": {"metrics": ["auc"]}},
    {METHOD: [{"method": "lr", "params": {"C": {"logspace": [-4, 2, 10]}}}, {"method": "attack_p"}]},
    {METHOD: [{"method": "rf", "params": {"max_depth": [5, None], "max_features": ["sqrt"]}}]},
    {"model.kwargs": {"anything": [1, {"a": None}]}}, {"audit": {"claimed_epsilon": 3, "delta": 1.0e-5}},
]  # fmt: skip


@pytest.mark.parametrize("changes", RIGHT, ids=str)
def test_what_is_valid_is_right(write_config: Write, config: Draft202012Validator, changes: dict[str, Any]) -> None:
    for name in ("g.txt", "h.txt"):
        write_config().with_name(name).write_text("a\n")
    path = write_config({key: value for key, value in changes.items() if value is not None})
    load_config(path)
    assert faults(config, read(path)) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"attack.sede": 2}, "$.attack"), ({"extra": {}}, "$"), ({"attack.cv": 1}, "$.attack.cv"),
    ({"attack.cv": "3"}, "$.attack.cv"), ({"attack.eval": "holdot"}, "$.attack.eval"),
    ({"attack.eval_fraction": 1.0}, "$.attack.eval_fraction"), ({"extract.device": "TPU"}, "$.extract.device"),
    ({"model.checkpoint": None}, "$.model"), ({"model.checkpoint": ""}, "$.model.checkpoint"),
    ({"model.factory": "vgg16"}, "$.model.factory"), ({"data.source": "imagenet"}, "$.data.source"),
    ({"data.members": []}, "$.data.members"), ({"data.members": {"split": "train", "amount": 3}}, "$.data.members"),
    ({"data.std": [0.2, 0.0, 0.2]}, "$.data.std[1]"), ({METHOD: []}, "$.attack.methods"),
    ({METHOD: [{"method": "svm"}]}, "$.attack.methods[0].method"),
    ({METHOD: [{"method": "lr", "params": {"c": [1]}}]}, "$.attack.methods[0].params"),
    ({METHOD: [{"method": "lr", "params": {"C": 1.0}}]}, "$.attack.methods[0].params.C"),
    ({METHOD: [{"method": "lr", "params": {"C": {"geomspace": [1, 2]}}}]}, "$.attack.methods[0].params.C"),
    ({METHOD: [{"method": "threshold_loss", "params": {"C": [1]}}]}, "$.attack.methods[0].params"),
    ({METHOD: [{"method": "lr", "notes": []}]}, "$.attack.methods[0]"),
    ({"report": {"metrics": ["precisoin"]}}, "$.report.metrics[0]"),
    ({"report": {"metrics": ["auc", "auc"]}}, "$.report.metrics"), ({"gate": "strict"}, "$.gate"),
    ({"gate": {"rule": "most"}}, "$.gate"), ({"gate": {"rules": [{"metric": "f1", "above": 1}]}}, "$.gate"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "where"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_a_mistake_is_found(
    write_config: Write, config: Draft202012Validator, changes: dict[str, Any], where: str
) -> None:
    path = write_config(changes)
    assert faults(config, read(path)) == [where]
    with pytest.raises(InputError):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("partitoin: x", "$"), ("extract: {gress: x}", "$.extract"), ("extract: {nodes: 0}", "$.extract.nodes"),
        ("extract: {time: 3600}", "$.extract.time"), ("modules: gcc", "$.modules"), ("launcher: []", "$.launcher"),
    ],
)
def test_a_mistake_in_a_site_file_is_found(
    tmp_path: Path, site: Draft202012Validator, text: str, where: str
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    assert faults(site, read(path)) == [where]
    with pytest.raises(InputError):
        load_site(path)


def test_a_launcher_is_a_line_or_a_list(tmp_path: Path, site: Draft202012Validator) -> None:
    for text in ("launcher: srun --mpi=pmix", "launcher: [srun, --mpi=pmix]"):
        assert faults(site, yaml.safe_load(text)) == []
