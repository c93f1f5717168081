"""JSON schemas for editors, made from the models that validate: every key, what it means, its values and default.

A model's docstring says what its keys are, under `Attributes:`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from mia_batch.attacks.reference_plan import MOST
from mia_batch.settings.grids import MAX_VALUES
from mia_batch.settings.outputs import OWN, OutputsConfig
from mia_batch.settings.schema import (
    FROM_FILES,
    PREPROCESSING,
    SOURCES,
    Config,
    gate_metrics,
    measures,
    report_metrics,
)
from mia_batch.signals import OUTPUTS
from mia_batch.verdict.rules import GATE_RULES

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FUNCTION = r"^.+:[A-Za-z_][A-Za-z0-9_]*$"  # package.module:function, path/to/file.py:function

Json = dict[str, Any]
SchemaForm = Callable[[Json], Json]


def one_or_list(schema: Json) -> Json:
    """One item, or the list of them; null where that is allowed."""
    choices = schema.get("anyOf", [schema])
    items = [choice["items"] for choice in choices if "items" in choice]
    return {"anyOf": [*items, *choices]}


def one_of(names: Callable[[], Any]) -> SchemaForm:
    """A name from a registry, or a list of such; null where that is allowed."""

    def named(schema: Json) -> Json:
        if "anyOf" in schema:
            return schema | {"anyOf": [named(each) for each in schema["anyOf"]]}
        if schema["type"] == "array":
            return schema | {"items": named(schema["items"]), "uniqueItems": True}
        return schema | ({"enum": list(names())} if schema["type"] == "string" else {})

    return named


def _function(schema: Json) -> Json:
    return schema | {"pattern": FUNCTION}


def word_or_function(words: Sequence[str]) -> SchemaForm:
    """One of these words, or the user's function."""
    return lambda schema: schema | {"anyOf": [{"enum": list(words)}, {"type": "string", "pattern": FUNCTION}]}


def _slices(schema: Json) -> Json:
    files = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}, "minProperties": 1}
    names = {"pattern": r"^[A-Za-z_]\w*$"}
    return {
        "type": "object", "properties": {"class": {"type": "boolean"}}, "additionalProperties": files,
        "propertyNames": names,
    }  # fmt: skip


# What validators read from more than the type says, or less.
FORMS: dict[str, SchemaForm] = {
    "ModelConfig.factory": _function,
    "ModelConfig.output": word_or_function(OUTPUTS),
    "DataConfig.source": word_or_function(SOURCES),
    "OutputsConfig.source": lambda schema: schema | {"const": FROM_FILES},
    "OutputsConfig.canaries": one_or_list,
    "DataConfig.preprocess": word_or_function(PREPROCESSING),
    "DataConfig.pad_to": one_or_list,
    "DataConfig.members": one_or_list,
    "DataConfig.nonmembers": one_or_list,
    "DataConfig.canaries": one_or_list,
    "Config.references": lambda schema: schema["anyOf"][0],
    "ReferencesConfig.count": lambda schema: schema | {"multipleOf": 2, "minimum": 2, "maximum": MOST},
    "ReportConfig.metrics": one_of(report_metrics),
    "ReportConfig.slices": _slices,
    "RuleConfig.metric": one_of(measures),
    "GateConfig.metrics": one_of(gate_metrics),
    "GateConfig.rule": one_of(lambda: GATE_RULES),
}


def config_schema() -> Json:
    """The schema of a configuration."""
    schema = editor_schema(Config, "Configuration of a mia_batch audit", FORMS)
    _tell_outputs(schema)
    gate = schema["properties"]["gate"]
    schema["properties"]["gate"] = {"description": gate["description"], "anyOf": [{"const": "tutorial"}, gate]}
    _tell_methods(schema["$defs"])
    either = (["checkpoints", "inclusion"], ["shadows", "count"])
    schema["$defs"]["ReferencesConfig"]["oneOf"] = [{"required": keys} for keys in either]
    return schema


def _tell_outputs(schema: Json) -> None:
    """Put in what the section `data` is where outputs come from files, and that there is no section `model` then."""
    found = editor_schema(OutputsConfig, "", FORMS)
    keys = {name: key for name, key in found["properties"].items() if name in OWN}
    required = [name for name in found["required"] if name in OWN]
    schema["$defs"] |= {
        "OutputColumns": found["$defs"]["OutputColumns"],
        "OutputsConfig": {
            "additionalProperties": False, "description": found["description"], "properties": keys,
            "required": required, "type": "object",
        },
    }
    is_it = {"properties": {"source": {"const": FROM_FILES}}, "required": ["source"]}
    data = schema["properties"]["data"]
    schema["properties"]["data"] = {
        "description": data["description"], "if": is_it, "then": {"$ref": "#/$defs/OutputsConfig"},
        "else": {"$ref": data["$ref"]},
    }
    schema["required"] = [name for name in schema["required"] if name != "model"]
    schema |= {"if": {"properties": {"data": is_it}}, "else": {"required": ["model"]}}


def editor_schema(root: type[BaseModel], title: str, forms: Mapping[str, SchemaForm]) -> Json:
    """The schema of a file that `root` reads.

    Args:
        root: the whole of it.
        title: of the schema.
        forms: by model and key, how its schema differs from what pydantic makes of its type.
    """
    schema = _tidied(root.model_json_schema())
    parts = schema.pop("$defs")
    for model in models_in(root) - {root}:
        _describe(parts[model.__name__], model, forms)
    _describe(schema, root, forms)
    for name, key in schema["properties"].items():
        reference = key.get("$ref", "").rpartition("/")[2]
        if reference:  # its keys have the defaults
            schema["properties"][name] = {"$ref": key["$ref"], "description": parts[reference]["description"]}
    return {"$schema": DRAFT, "title": title, **schema, "$defs": parts}


def models_in(root: type[BaseModel]) -> set[type[BaseModel]]:
    """A model and all those that its keys are of."""
    found, left = set[type[BaseModel]](), [root]
    while left:
        model = left.pop()
        found.add(model)
        for field in model.model_fields.values():
            left += [each for each in _types_in(field.annotation) if issubclass(each, BaseModel) and each not in found]
    return found


def _types_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


def _describe(schema: Json, model: type[BaseModel], forms: Mapping[str, SchemaForm]) -> None:
    """Put a model's words and forms into its schema, and take out what no user writes."""
    said, words = documented(model)
    schema["description"] = said
    hidden = [name for name, field in model.model_fields.items() if field.exclude]
    for name in hidden:
        schema["properties"].pop(name)
    required = [name for name in schema.pop("required", []) if name not in hidden]
    schema |= {"required": required} if required else {}
    for name, key in schema["properties"].items():
        default = {"default": key.pop("default")} if "default" in key else {}
        form = forms.get(f"{model.__name__}.{name}", dict)
        words_of = {"description": words[name]} if name in words else {}
        schema["properties"][name] = {**words_of, **form(key), **default}


def documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """The first sentence of a model's docstring, and what it says of each key under `Attributes:`."""
    text = inspect.cleandoc(model.__doc__ or "")
    listed = text.partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+(?:\n     .+)*)", listed, re.MULTILINE)
    return " ".join(text.partition("\n\n")[0].split()), {name: " ".join(words.split()) for name, words in found}


def _tidied(schema: Any) -> Any:
    """Without titles and formats that say nothing, and with the words of JSON Schema for the length of a list."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidied(each) for key, each in schema.items() if key != "title" or not isinstance(each, str)}
    if tidy.get("format") == "path":
        tidy = {key: each for key, each in tidy.items() if key != "format"} | {"minLength": 1}
    if tidy.get("type") == "array" and "minLength" in tidy:
        tidy["minItems"] = tidy.pop("minLength")
    return tidy


def _tell_methods(parts: Json) -> None:
    """Put in which attacks there are, and which parameters each takes."""
    import sklearn

    from mia_batch.attacks.registry import ATTACKS, classifier_of
    from mia_batch.search.estimators import METHODS

    searched = {name: classifier_of(name) for name in ATTACKS}
    taken: dict[str, Sequence[str]] = {
        name: METHODS[method].parameters if method else () for name, method in searched.items()
    }
    taken |= {name: tuple(getattr(attack, "all_parameters", taken[name])) for name, attack in ATTACKS.items()}
    method = parts["MethodConfig"]
    method["properties"]["method"]["enum"] = list(ATTACKS)
    method["$comment"] = f"parameters of scikit-learn {'.'.join(sklearn.__version__.split('.')[:2])}"
    method["allOf"] = [_parameters(name, parameters) for name, parameters in taken.items()]
    parts["Values"] = _values()


def _parameters(method: str, names: Sequence[str]) -> Json:
    own = {"properties": {name: {"$ref": "#/$defs/Values"} for name in names}, "additionalProperties": False}
    is_it = {"properties": {"method": {"const": method}}, "required": ["method"]}
    return {"if": is_it, "then": {"properties": {"params": own}}}


def _values() -> Json:
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3}
    generator = {
        "type": "object", "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
        "properties": dict.fromkeys(("logspace", "linspace", "range"), numbers),
    }  # fmt: skip
    words = f"a list, or [first, last, count] or a range of numbers, at most {MAX_VALUES}"
    return {"description": words, "anyOf": [{"type": "array", "minItems": 1}, generator]}
