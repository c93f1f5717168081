"""The verdict as JUnit XML, which pipelines show: a test case for each attack, and one for the audit."""

from __future__ import annotations

from xml.etree import ElementTree

from mia_batch.report.media import xml
from mia_batch.report.summary import Summary, VerdictSummary
from mia_batch.verdict.rules import MethodVerdict

SUITE = "mia-batch"


def to_junit(summary: Summary) -> str:
    """Text of a JUnit XML file: a leak is a failure; what is inconclusive or not evaluable is an error."""
    verdict = summary.verdict
    suite = ElementTree.Element("testsuite", name=SUITE)
    _case(suite, "verdict", _fault_of(verdict.outcome), verdict.sentence, [*verdict.notes, *verdict.cautions])
    for name, method in summary.methods.items():
        if method.not_run:
            _case(suite, name, "skipped", f"not run, because {method.reason}", [])
        elif method.reason:
            _case(suite, name, "error", f"not evaluable: {method.reason}", [])
        elif name in verdict.methods:
            found = verdict.methods[name]
            _case(suite, name, _fault_of_attack(found, verdict), _said(found), [])
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite)))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, name: str, fault: str | None, message: str, more: list[str]) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=SUITE, name=xml(name), time="0")
    text = xml("\n".join([message, *more]))
    if fault:
        ElementTree.SubElement(case, fault, message=xml(message.splitlines()[0]), type=fault).text = text
    else:
        ElementTree.SubElement(case, "system-out").text = text


def _fault_of(outcome: str) -> str | None:
    return {"leak": "failure", "no leak": None}.get(outcome, "error")


def _fault_of_attack(found: MethodVerdict, verdict: VerdictSummary) -> str | None:
    """An attack's leak counts in an audit that is evaluable, its doubts where no other rule than its own decides."""
    if found.leak:
        return "failure" if verdict.leak else "error"
    doubts = any(each.outcome == "inconclusive" for each in found.rules)
    return "error" if doubts and verdict.outcome == "inconclusive" and verdict.rule is None else None


def _said(found: MethodVerdict) -> str:
    """Above and not above, and each rule's figure, interval and outcome."""
    lines = [
        f"{each.rule}: {_number(each.value)} [{_number(each.low)}, {_number(each.high)}], level {each.above:g}: "
        + each.outcome + (f" ({each.reason})" if each.reason else "")
        for each in found.rules
    ]  # fmt: skip
    named = (("above", found.above), ("not above", found.not_above), ("without a value", found.undefined))
    return "\n".join([*(f"{word}: {', '.join(names)}" for word, names in named if names), *lines])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

