"""A pull request's comment and a model card: the summary's figures, whatever it is called and whatever it lacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rundirs import BEFORE
from test_media import HOSTILE, Text

from mia_batch.report.markdown import model_card_text, pull_request_text
from mia_batch.report.summary import Summary, read_summary
from mia_batch.rundir.paths import RunPaths
from mia_batch.verdict.sentences import NO_PROOF

FORMS = (pull_request_text, model_card_text)


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


def changed(paths: RunPaths, change: Any) -> Summary:
    raw = json.loads(paths.summary_json.read_text())
    change(raw)
    return Summary.model_validate_json(json.dumps(raw))


@pytest.mark.parametrize("form", FORMS)
def test_the_figures_are_the_summarys(finished: RunPaths, form: Any) -> None:
    summary = read_summary(finished.summary_json)
    html = rendered(form(summary))
    for name, method in summary.methods.items():
        cells = [method.metrics[key] for key in ("balanced_accuracy", "auc", "tpr_at_fpr_0.01")]
        row = "".join(f"<td>{each.value:.3f} ({each.low:.3f} to {each.high:.3f})</td>\n" for each in cells)
        assert f"<td>{name}</td>\n{row}" in html
    text = " ".join(Text(html).text.split())
    for said in (summary.verdict.sentence, *summary.verdict.notes, *summary.verdict.cautions):
        assert " ".join(said.split()) in text
    assert f"{summary.samples.n_members} members" in text
    assert summary.provenance["config_file"] in text


def test_a_card_states_criterion_and_limits(finished: RunPaths) -> None:
    card = model_card_text(read_summary(finished.summary_json))
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        "## Privacy: membership inference", "### Criterion", "### Attacks", "### The model and its data",
        "### Limitations", "### What was audited",
    ]  # fmt: skip
    text = " ".join(Text(rendered(card)).text.split())
    assert "balanced accuracy of at most 0.6" in text
    assert "Probability of a wrong verdict of the audit: at most 0.05" in text
    assert NO_PROOF in text
    assert "Non-members used for: unknown" in text


@pytest.mark.parametrize(("leak", "sign"), [(True, ":x:"), (False, ":white_check_mark:"), (None, ":warning:")])
def test_the_first_line_is_the_verdict(finished: RunPaths, leak: bool | None, sign: str) -> None:
    text = pull_request_text(changed(finished, lambda raw: raw["verdict"].update(leak=leak)))
    outcome = {True: "leak", False: "no leak", None: "inconclusive"}[leak]
    assert text.splitlines()[0] == f"### {sign} Membership-inference audit: {outcome}"


@pytest.mark.parametrize("form", FORMS)
def test_attacks_without_figures_have_their_reasons(finished: RunPaths, form: Any) -> None:
    def lose(raw: dict[str, Any]) -> None:
        none = {"value": None, "low": None, "high": None, "reason": "one | class"}
        raw["methods"]["lr"]["metrics"]["auc"] = none
        raw["methods"]["correctness"].update(reason="it needs <b>logits</b>", not_run=True)

    html = rendered(form(changed(finished, lose)))
    assert "<td>nan: one | class</td>" in html
    assert "<td>not run: it needs &lt;b&gt;logits&lt;/b&gt;</td>" in html


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_before_has_what_it_has(form: Any) -> None:
    assert "| rf |" in form(read_summary(BEFORE))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_change_nothing_but_themselves(finished: RunPaths, name: str) -> None:
    def call(raw: dict[str, Any], name: str) -> None:
        raw["verdict"].update(sentence=f"Said {name}", notes=[name], cautions=[name])
        raw["provenance"].update(config_file=name)
        raw["provenance"]["config"]["data"]["nonmembers_used_for"] = name
        raw["methods"]["lr"].update(reason=name or "none")

    raw = json.loads(finished.summary_json.read_text())
    call(raw, name)
    plain = json.loads(finished.summary_json.read_text())
    call(plain, "plain")
    for form in FORMS:
        hostile, usual = (Text(rendered(form(Summary.model_validate(each)))) for each in (raw, plain))
        assert hostile.tags - {"span"} == usual.tags - {"span"}
