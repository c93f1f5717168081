"""`mia-batch check`: the resolved configuration, and what each stage will do."""

from __future__ import annotations

import argparse
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mia_batch.data.selection import Selection, contents
from mia_batch.data.sources import open_source
from mia_batch.errors import InputError
from mia_batch.inputs import INPUT_DTYPE, NO_GROUP
from mia_batch.network.datasets import open_dataset
from mia_batch.process.exit_codes import OK
from mia_batch.process.resources import available_cpus
from mia_batch.report.media import terminal
from mia_batch.report.tables import terminal_width, wrapped
from mia_batch.settings.loading import load_config, named_in
from mia_batch.settings.schema import SOURCES, Config, DataConfig, MethodConfig
from mia_batch.stages.arguments import add_config_arguments, named_folder
from mia_batch.stages.estimates import (
    StageCost,
    column_widths,
    earlier_speed,
    estimate_lines,
    estimates,
    import_estimates,
    known_of,
    n_classes_of,
    n_outputs,
    reference_shapes,
    runs_around,
    training_estimates,
)
from mia_batch.stages.plan import Plan, make_plan
from mia_batch.stages.shadows import Models, models_of_audit
from mia_batch.stages.trial import try_in_child
from mia_batch.verdict.rules import GATE_RULES, JointRule, Rule
from mia_batch.verdict.sentences import words

if TYPE_CHECKING:  # it imports SciPy
    from mia_batch.metrics.base import Effects

# sample_index, label, member, group, done, loss, what is kept of the input; logits and split come on top
BYTES_PER_ROW = 8 + 4 + 1 + 8 + 1 + 8 + INPUT_DTYPE.itemsize
log = logging.getLogger(__name__)
EXAMPLES = (
    "mia-batch check audit.yaml",
    "mia-batch check audit.yaml --try",
    "mia-batch check audit.yaml --ranks 8 --set extract.batch_size=128",
)
INDENT = 9  # behind "extract: "
WIDE, LONGEST_ITEM = 124, 24  # columns of the config, and of a key with a number in it
ATTACK_BYTES_PER_ROW = 8 + 1 + 4 + 1  # score, decision, by which split, member


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG, and what changes the plan."""
    add_config_arguments(parser)
    parser.add_argument("--checkpoint", metavar="FILE", help="audit this checkpoint instead of the config's")
    parser.add_argument("--ranks", metavar="N", type=int, default=1, help="MPI ranks of the extraction (default 1)")
    tried = "run the network on 64 samples on CPU, in a process of its own: imports model.factory and model.output too"
    parser.add_argument("--try", dest="try_", action="store_true", help=tried)
    runs = "estimate time by an earlier run of this network, which is here or in here"
    parser.add_argument("--runs", metavar="DIR", help=runs)


def say_what_is_run(config: Config, *, tried: bool) -> None:
    """Name the user's own functions that a check imports and calls."""
    named = {"data.source": config.data.source, "data.preprocess": config.data.preprocess}
    if tried and not config.imports:
        named |= {"model.factory": config.model.factory, "model.output": config.model.output}
    own = [f"{field} ({name})" for field, name in named.items() if ":" in name and not name.startswith("mia_batch.")]
    if own:
        log.info("this runs code of its user's: %s", ", ".join(own))


def run(args: argparse.Namespace) -> int:
    """Print the resolved config and the plan."""
    if args.ranks < 1:
        raise InputError(f"--ranks: must be at least 1, got {args.ranks}")
    config = load_config(args.config, checkpoint=args.checkpoint, changes=args.changes)
    say_what_is_run(config, tried=args.try_)
    tried = try_in_child(config, args.changes) if args.try_ else []
    lines = import_lines(config) if config.imports else extract_lines(config, args.ranks, args.runs)
    width = terminal_width()
    begun = min((width or WIDE) - LONGEST_ITEM, WIDE - LONGEST_ITEM)  # what begins before it ends behind it
    print(yaml.safe_dump(config.resolved(), sort_keys=False, default_flow_style=None, width=max(begun, 10)))
    print("\n".join(wrapped(terminal(line), width, INDENT) for line in [*lines, *tried]))
    return OK


def extract_lines(config: Config, ranks: int, runs: str | None) -> list[str]:
    """What the stages will do of a network and its samples."""
    plan = make_plan(config)
    lines = [*sample_lines(config.data, plan), *data_lines(config.data, plan.selection)]
    models = models_of_audit(config, dry_run=True)
    stored, n_missing = reference_lines(config, plan)
    planned, trainings = plan_lines(config, plan.selection, ranks), training_estimates(config, models) if models else []
    found = [*trainings, *estimated(config, plan, ranks, runs, n_missing)]
    return [*lines, planned[0], *shadow_lines(models), *stored, *planned[1:], *estimate_lines(found)]


def shadow_lines(models: Models | None) -> list[str]:
    """What is to be trained before the audit."""
    if models is None:
        return []
    count, n_samples = models.plan.models.n_references, models.plan.models.included.sum(axis=1)
    return [
        f"shadows: {count} reference models of {n_samples.min()} to {n_samples.max()} samples each, "
        f"{len(models.missing)} of them not trained in {models.paths.root}"
    ]


def reference_lines(config: Config, plan: Plan) -> tuple[list[str], int]:
    """What the store is to hold for this config, and how many outputs are missing there."""
    if config.references is None:
        return [], 0
    from mia_batch.rundir.reference_store import StoredSamples, reference_paths, row_dtype  # h5py takes a while

    wanted, chosen, n_queries = config.references, plan.selection, config.references.n_queries
    found = reference_paths(plan.manifest, StoredSamples(chosen.split, chosen.sample_index, chosen.label))
    total = n_outputs(wanted)
    n_missing = total - sum(paths.outputs.exists() for paths in found.values())
    per_row = row_dtype(n_classes_of(config, chosen.label), n_queries=n_queries, logits=wanted.logits).itemsize
    size = len(chosen) * (per_row + 8 + 4 + 1 + chosen.split.dtype.itemsize // 4)
    asked = f", {n_queries} queries of each sample" if wanted.queries else ""
    return [
        f"references: {total} outputs of {len(chosen)} samples{asked}, {n_missing} of them missing in "
        f"{wanted.store}; about {_bytes(size)} each, {_bytes(size * n_missing)} more"
    ], n_missing


def import_lines(config: Config) -> list[str]:
    """What the stages will do of outputs from files, all of which are read."""
    from mia_batch.stages.attack_settings import that_run  # scikit-learn takes a second
    from mia_batch.stages.import_outputs import check_samples, open_outputs  # h5py takes a while

    with named_in(config.path):
        outputs = open_outputs(config)
        samples = outputs.read_samples()
        for _ in outputs.read_outputs():  # which refuses what the import would
            pass
        check_samples(config, samples)
    n, n_members = len(samples.member), int(samples.member.sum())
    size = n * (8 + 1 + 8 + 1 + 4 * (samples.label is not None) + 8 * (samples.group is not None))
    size += 4 * n * (outputs.n_classes or 0)
    lines = [
        f"import:  {n} samples ({n_members} members, {n - n_members} non-members): {outputs.describe()}; "
        f"features.h5 about {_bytes(size)}"
    ]
    attack, why = that_run(config.attack, known_of(outputs.n_classes, samples))
    config, n_classes = config.model_copy(update={"attack": attack}), outputs.n_classes or 2
    lines += attack_lines(config, samples.member, samples.group, n_classes)
    lines += [f"note:    {name}: not run, because {reason}" for name, reason in why.items()]
    found = import_estimates(config.attack, outputs.n_classes, samples, n_jobs=available_cpus())
    return [*lines, *estimate_lines(found)]


def sample_lines(data: DataConfig, plan: Plan) -> list[str]:
    """What the first sample of a user's source is, and so every sample."""
    if data.source in SOURCES:
        return []
    split, index = plan.selection.split[0], plan.selection.sample_index[0]
    return [f"sample:  {split} sample {index}: {plan.form}; label {plan.selection.label[0]}"]


def estimated(config: Config, plan: Plan, ranks: int, runs: str | None, n_missing: int) -> list[StageCost]:
    """What each stage will take on this machine."""
    folders = [] if runs is None else runs_around(named_folder("--runs", runs))
    speed = earlier_speed(plan.manifest, folders)
    return estimates(
        config, plan.selection, ranks=ranks, n_jobs=available_cpus(), speed=speed, n_missing=n_missing
    )


def data_lines(data: DataConfig, selection: Selection) -> list[str]:
    """Which inputs of a file of records are on both sides, and declared groups that are."""
    from mia_batch.attacks.grouping import twins  # SciPy takes a second
    from mia_batch.verdict.duplicates import duplicates_caution, named_duplicates, too_many_duplicates

    lines, member = [], selection.member
    if data.source in SOURCES:  # reading a user's source takes as long as extract does, which looks then
        twin = twins(contents(selection, open_source(data, open_dataset)), member)
        lines.append(duplicates_caution(twin, member) or "no input is on both sides")
        lines += [named_duplicates(twin, member, selection.split, selection.sample_index)] if twin.any() else []
        if fault := too_many_duplicates(twin, member, data.max_duplicates):
            lines.append(f"WARNING: this audit will not be evaluable: {fault}")
    if data.group is not None:
        sides = [set(selection.group[member == side].tolist()) - {NO_GROUP} for side in (1, 0)]
        lines.append(f"{len(sides[0] | sides[1])} declared groups, {len(sides[0] & sides[1])} of them on both sides")
    return [f"{'data:' if i == 0 else '':<9}{line}" for i, line in enumerate(lines)]


def plan_lines(config: Config, selection: Selection, ranks: int) -> list[str]:
    """What each stage will do, a few lines each."""
    n_samples, n_members = len(selection), int(selection.member.sum())
    n_classes = n_classes_of(config, selection.label)
    per_rank = math.ceil(n_samples / ranks)
    batches = math.ceil(per_rank / config.extract.batch_size)
    size = n_samples * (BYTES_PER_ROW + selection.split.dtype.itemsize // 4 + 4 * n_classes)
    line = (
        f"extract: {n_samples} samples ({n_members} members, {n_samples - n_members} non-members) on {ranks} rank(s), "
        f"up to {per_rank} each in {batches} batches of {config.extract.batch_size}; "
        f"features.h5 about {_bytes(size)} for {n_classes} classes"
    )
    return [line, *attack_lines(config, selection.member, selection.group, n_classes)]


def attack_lines(
    config: Config, member: NDArray[np.int8], declared: NDArray[np.int64] | None, n_classes: int
) -> list[str]:
    """What attack and reduce will do, of membership and declared groups, (n_samples,) each."""
    from mia_batch.attacks.grouping import design_effects, group_codes  # scikit-learn takes a second
    from mia_batch.stages.attack_settings import splits_of

    n_samples = len(member)
    group = group_codes(None, declared, n_samples)
    splits = splits_of(config.attack, member, group)
    scored = np.concatenate([split.evaluated for split in splits])
    times = f" {len(splits)} times" if len(splits) > 1 else ""
    widths = column_widths(config.attack, n_classes, inputs_known=not config.imports)
    lines = [
        f"attack:  fit on {max(len(split.fit) for split in splits)}{times}, score {len(scored)}, "
        f"search: {config.attack.search}, cv {config.attack.cv}; "
        f"each attacks/*.h5 about {_bytes(ATTACK_BYTES_PER_ROW * n_samples)}, "
        f"{_bytes(8 * n_samples * (sum(widths.values()) + _numbers(config)))} more while it runs",
    ]
    lines += [f"         {_method_line(method, config)}" for method in config.attack.methods]
    effects = design_effects(member[scored], group[scored], cross_fitted=len(splits) > 1)
    lines += _gate_lines(config, member[scored], effects)
    return lines + [f"note:    {note}" for method in config.attack.methods for note in method.notes]


def _numbers(config: Config) -> int:
    """How many numbers of references the attacks read of a sample."""
    return sum(map(math.prod, reference_shapes(config.attack, config.references).values()))


def _gate_lines(config: Config, member: NDArray[np.integer], effects: Effects) -> list[str]:
    """What decides, what can be found at all, and a warning where the samples are too few."""
    from mia_batch.verdict.detectable import detectable_sentences, unlikely_to_pass  # SciPy takes a second

    gate, n_members = config.gate.gate(), int((member == 1).sum())
    sides: dict[str, Any] = {"n_members": n_members, "n_nonmembers": len(member) - n_members, "effects": effects}
    sides["n_attacks"] = len(config.attack.methods)
    lines = [_joint_words(gate.joint)] if gate.joint else []
    if gate.joint is None or gate.tutorial:
        limits = [f"{words(rule.name)} of {rule.above:g} ({_decides(rule)})" for rule in gate.rules]
        lines.append(f"levels for each attack, with an error of {gate.alpha:g} in all: {', '.join(limits)}")
        lines += detectable_sentences(gate, **sides)
    warning = None if gate.joint else unlikely_to_pass(gate, **sides)
    lines += [f"WARNING: {warning}"] if warning else []
    return [f"{'reduce:' if i == 0 else '':<9}{line}" for i, line in enumerate(lines)]


def _joint_words(rule: JointRule) -> str:
    asked = f"{GATE_RULES[rule.rule].asks} {', '.join(rule.metrics)}"
    bound = " at the interval's lower bound" if rule.bound == "lower" else ""
    return f"leak if {asked} of any method above {rule.threshold}{bound}"


def _decides(rule: Rule) -> str:
    return {"both": "finds and rules out", "leak": "finds", "no_leak": "rules out"}[rule.decides]


def _bytes(count: int) -> str:
    unit, name = (2**20, "MiB") if count >= 2**20 else (2**10, "KiB")
    return f"{count / unit:.1f} {name}"


def _method_line(method: MethodConfig, config: Config) -> str:
    from mia_batch.attacks.registry import classifier_of  # scikit-learn takes a second
    from mia_batch.search.estimators import n_candidates

    if classifier_of(method.method) is None:
        return f"{method.method}: no grid to search"
    candidates = n_candidates(method.params)
    if config.attack.search == "halving":
        return f"{method.method}: {candidates} candidates, halved round by round"
    tried = min(candidates, config.attack.n_iter) if config.attack.search == "random" else candidates
    return f"{method.method}: {tried} candidates, {tried * config.attack.cv} fits and 1 final"
