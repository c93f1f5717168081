"""What the page says in words: the verdict for those who decide, what each attack does, what an audit is."""

from __future__ import annotations

from collections.abc import Sequence

from mia_batch.report.summary import FewerReferencesSummary, MethodSummary, Summary
from mia_batch.verdict.rules import RuleOutcome
from mia_batch.verdict.sentences import words

HEADLINES = {
    "leak": "This model leaks who was in its training data",
    "no leak": "No leak was found above the stated level",
    "inconclusive": "This audit cannot say whether the model leaks",
    "not evaluable": "This model could not be audited",
}
LABELS = {"leak": "Leak found", "no leak": "No leak above the level", "inconclusive": "Inconclusive",
          "not evaluable": "Not evaluable"}  # fmt: skip
MEANINGS = {
    "leak": "Whoever can query it can tell, better than the level allows, whether a given record was used to train it. "
    "Treat it as disclosing its training data until a new audit passes.",
    "no leak": "None of the attacks that were tried tells training records from others above the level. That is "
    "evidence about these attacks on these samples. Passing does not prove anonymity.",
    "inconclusive": "No leak above the level was shown, and none is ruled out. This is not a pass: audit again with "
    "more samples, or with the attacks that this audit asks for.",
    "not evaluable": "Something about the model or the samples makes every figure meaningless, so that there is no "
    "verdict. This is not a pass: the reason below says what to put right.",
}
ATTACKS = {
    "lr": "A logistic regression on the model's answers, fitted to tell members from non-members.",
    "knn": "Nearest neighbours among the model's answers to known members and non-members.",
    "mlp": "A small neural network on the model's answers.",
    "rf": "A random forest on the model's answers.",
    "hgb": "Boosted trees on the model's answers.",
    "threshold_loss": "Calls a record a member if the model's loss on it is low (Yeom et al. 2018).",
    "threshold_confidence": "Calls a record a member if the model is sure of its true class (Carlini et al. 2022).",
    "threshold_hinge": "Calls a record a member if the true class is far ahead of the next one.",
    "threshold_entropy": "Calls a record a member if the prediction has little entropy.",
    "threshold_modified_entropy": "As the entropy, of a prediction whose true class is known (Song and Mittal 2021).",
    "correctness": "Calls a record a member if the model is right on it: the gap attack (Yeom et al. 2018).",
    "attack_p": "Compares the loss with those of unseen records (Ye et al. 2022).",
    "qmia": "Compares the margin with what unseen records of such inputs have (Bertran et al. 2023).",
    "lira": "Likelihood ratio against reference models, each record's own variance (Carlini et al. 2022).",
    "lira_fixed": "Likelihood ratio against reference models, one variance for all records.",
    "lira_bayes": "Likelihood ratio against reference models, variances learnt from all records.",
    "lira_offline": "How unusual the confidence is among reference models that have not seen the record.",
    "rmia": "Share of unseen records that the record's likelihood ratio dominates (Zarifzadeh et al. 2024).",
    "log_ratio": "The model's probability of the true class against that of reference models.",
    "attack_r": "Compares the loss with those of reference models that have not seen the record (Ye et al. 2022).",
    "calibration": "Confidence less the mean of reference models that have not seen the record (Watson et al. 2022).",
    "squared_difference": "Whether the confidence is nearer to reference models that saw the record or to the others.",
    "pmia": "Likelihood ratio whose members' side comes from other records.",
    "stack": "A classifier that learns from reference models that play the target.",
}
ATLAS_SAID = "MITRE ATLAS AML.T0024.000, Infer Training Data Membership"
THREAT = {
    "access": "Black box with scores: the adversary sends records to the model and sees the outputs of every class. "
    "No access to weights, gradients or the training run.",
    "knowledge": "The adversary has candidate records with their true labels, and knows of some others whether they "
    "were members: attacks are fitted on such records and scored on the rest.",
    "references": "The adversary also has models of the same architecture trained on known halves of such data.",
}
NOT_TESTED = (
    "Extraction of training records, such as text that the model recites.",
    "Model inversion: reconstruction of inputs or of typical members of a class.",
    "Attribute inference: sensitive fields of a record of which the rest is known.",
    "Property inference: facts about the training data as a whole.",
    "Theft of the model, and attacks on its integrity or availability.",
    "Attacks by those who see weights or gradients, as in federated learning.",
)
PASSING = (
    "Passing does not prove anonymity: another attack, more samples or better reference models may find what this "
    "audit has not."
)
ERROR_CONTROL = (
    "A leak needs a one-sided lower bound above the level, with the error alpha divided over attacks and rules, so "
    "that a model without a leak above the levels is called leaking in at most alpha of audits. Passing needs every "
    "attack's upper bound at alpha below the level, so that a model above it passes in at most alpha of audits."
)


def state_of(summary: Summary) -> str:
    """leak, no leak, inconclusive or not evaluable."""
    verdict = summary.verdict
    not_evaluable = verdict.outcome == "inconclusive" and verdict.sentence.startswith("NOT EVALUABLE")
    return "not evaluable" if not_evaluable else verdict.outcome


def attack_words(name: str) -> str:
    """What an attack does; empty for one that this page does not know."""
    if name in ATTACKS:
        return ATTACKS[name]
    if name.startswith("class_") and (own := ATTACKS.get(name.removeprefix("class_"))):
        return f"{own} With a threshold for each class."
    if name.endswith("_offline") and (own := ATTACKS.get(name.removesuffix("_offline"))):
        return f"{own} Without models that saw the record."
    return ATTACKS.get(name.partition("_")[0], "")


def deciding_rules(summary: Summary) -> list[tuple[str, RuleOutcome]]:
    """The attacks and rules that made the outcome, the strongest first; none where something else did."""
    verdict = summary.verdict
    if state_of(summary) == "not evaluable" or (verdict.rule is not None and not verdict.tutorial):
        return []
    found = [
        (name, each) for name, outcome in verdict.methods.items() for each in outcome.rules
        if each.outcome == verdict.outcome
    ]  # fmt: skip
    if verdict.outcome == "leak":
        return sorted(found, key=lambda pair: -_excess(pair[1]))
    if verdict.outcome == "no leak":  # of each rule the attack that comes nearest
        nearest = sorted(found, key=lambda pair: -(pair[1].high or pair[1].value or 0.0))
        return list({each.rule: (name, each) for name, each in reversed(nearest)}.values())[::-1]
    return sorted(found, key=lambda pair: -(pair[1].high if pair[1].high is not None else 9.0))


def _excess(each: RuleOutcome) -> float:
    """Balanced accuracy first: it is what most readers know."""
    low = each.low if each.low is not None else each.value if each.value is not None else each.above
    return (low - each.above) + (10.0 if each.rule == "balanced_accuracy" else 0.0)


def rule_words(name: str, each: RuleOutcome) -> str:
    """What one rule says of one attack."""
    figure = "without limit" if each.value is None else f"{each.value:.3f}"
    bounds = {
        "leak": "" if each.low is None else f", at least {each.low:.3f}",
        "no leak": "" if each.high is None else f", at most {each.high:.3f}",
        "inconclusive": f" ({each.reason or 'no upper bound'})" if each.high is None else f", up to {each.high:.3f}",
    }
    return f"{words(each.rule)} of {name}: {figure}{bounds.get(each.outcome, '')}; the level is {each.above:g}"


def more_references(points: Sequence[FewerReferencesSummary]) -> str:
    """What the last step of a curve over references says of still more of them."""
    before, last = points[-2], points[-1]
    (auc, tpr), (auc_before, tpr_before) = (
        [each.metrics[name].value or 0.0 for name in ("auc", "tpr_at_fpr_0.01")] for each in (last, before)
    )
    step = f"From {before.n_references} to {last.n_references} references"
    return (
        f"{step} the AUC goes from {auc_before:.3f} to {auc:.3f}, and the share of members found at 1 % false "
        f"positives from {tpr_before:.1%} to {tpr:.1%}."
    )


def right_of(method: MethodSummary) -> str:
    """How often an attack is right, if half of all records are members."""
    found = method.metrics.get("balanced_accuracy")
    if found is None or found.value is None or found.low is None:
        return ""
    return f"right on {found.value:.1%} of records, half of them members; guessing is right on 50%"


def how_sure(summary: Summary) -> str:
    """How often such a verdict is wrong, in words; empty where rules without bounds, or others, have decided."""
    verdict = summary.verdict
    by_bounds = verdict.rules and all(rule.bound == "lower" for rule in verdict.rules)
    if not by_bounds or verdict.alpha is None or summary.claim is not None or not deciding_rules(summary):
        return ""
    return {
        "leak": f"A model that keeps to the levels would be called leaking by at most {verdict.alpha:.0%} of audits.",
        "no leak": f"A model above a level would pass at most {verdict.alpha:.0%} of audits by these attacks.",
    }.get(verdict.outcome, "")
