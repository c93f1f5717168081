"""report.html as text: what it says, that nothing of others acts in it, and that it stays small."""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pages import HOSTILE, made_audit, made_config, made_curve, made_features, made_result
from rundirs import BEFORE

from mia_batch.report import words
from mia_batch.report.charts import interval_chart
from mia_batch.report.evidence import Evidence
from mia_batch.report.page import CONTENTS, NONE, to_page
from mia_batch.report.shown_text import short, shown
from mia_batch.report.summary import SlicesSummary, Summary, read_summary, to_json
from mia_batch.settings.loading import load_config
from mia_batch.stages.evidence import make_evidence


class Elements(HTMLParser):
    """Tags with attributes, and the text of each `data-figure`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, str] = {}
        self._at: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if name := named.get("data-figure"):
            self._at.append((tag, name))
            self.figures.setdefault(name, "")

    def handle_endtag(self, tag: str) -> None:
        if self._at and self._at[-1][0] == tag:
            self._at.pop()

    def handle_data(self, data: str) -> None:
        if self._at:
            self.figures[self._at[-1][1]] += data


def figure(summary: dict[str, Any], path: str) -> Any:
    """What summary.json has at a path."""
    found: Any = summary
    for key in path.split("/"):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found["value"] if isinstance(found, dict) else found


def same(text: str, value: Any) -> bool:
    """Whether a page's text is this figure, to the decimals that it shows."""
    text = text.strip()
    if value is None:
        return text.startswith((NONE, "not known"))
    if value in words.LABELS:
        return text == words.LABELS[value]
    found = re.match(r"-?[\d.]+(%?)", text)
    assert found, text
    decimals = len(found[0].rstrip("%").partition(".")[2])
    scale = 100 if found[1] else 1
    return found[0].rstrip("%") == f"{value * scale:.{decimals}f}"


def wrong_figures(page: str, summary: Summary) -> list[str]:
    known, found = json.loads(to_json(summary)), Elements(page).figures
    return [f"{path}: {text}" for path, text in found.items() if not same(text, figure(known, path))]


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Evidence]:
    dossier = {"organisation": "Clinic", "measures": ("DP-SGD",), "retest": "2031-01-01", "training_records": 500}
    config = made_config(report={"slices": {"class": True}}, dossier=dossier)
    return made_audit(tmp_path_factory.mktemp("page"), config=config)


@pytest.fixture(scope="module")
def page(audit: tuple[Summary, Evidence]) -> str:
    return to_page(*audit)


def test_every_figure_is_that_of_the_summary(page: str, audit: tuple[Summary, Evidence]) -> None:
    summary, _ = audit
    assert wrong_figures(page, summary) == []
    figures = Elements(page).figures
    for name, method in summary.methods.items():
        shown_of = [metric for metric in method.metrics if any(f"{name}/metrics/{metric}" in path for path in figures)]
        assert shown_of == list(method.metrics)
        assert f"methods/{name}/search/1/score" in figures
    wanted = {"verdict/outcome", "detectable/effect", "audited/members/accuracy", "audited/nonmembers/accuracy",
              "samples/n_members", "facts/parameters_per_record", "records/exposed/19/rank"}  # fmt: skip
    assert wanted <= set(figures)
    assert figures["facts/parameters_per_record"] == "2.0"


def test_a_figure_that_is_not_the_summarys_is_found(page: str, audit: tuple[Summary, Evidence]) -> None:
    summary, _ = audit
    raw = json.loads(to_json(summary))
    raw["methods"]["lr"]["metrics"]["auc"]["value"] -= 0.002
    assert [line.partition(":")[0] for line in wrong_figures(page, Summary.model_validate(raw))] == [
        "methods/lr/metrics/auc"
    ]


def test_the_verdict_comes_first_and_all_sections_follow(page: str) -> None:
    text = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    places = [text.index(said) for said in (
        words.HEADLINES["leak"], "The rule that decided", "What this audit could find", "The model itself",
        *(f'<section id="{name}"' for name, _ in CONTENTS if name not in ("references", "curves")),
    )]  # fmt: skip
    assert places == sorted(places)
    assert not {"references", "curves"} & set(re.findall(r'<section id="(\w+)"', text))


def test_what_an_officer_files_is_there(page: str, audit: tuple[Summary, Evidence]) -> None:
    summary, _ = audit
    text = html.unescape(page)
    for said in (
        "Clinic", "DP-SGD", "2031-01-01", "500 (as stated)", "1,000 (counted in the network)", words.ATLAS_SAID,
        "not stated (dossier.unit_of_privacy in the config)", "a" * 64, words.PASSING, *words.NOT_TESTED,
        "needs reference models, and the config has no section references", "mia-batch run /w/audit.yaml",
        "Passing does not prove anonymity", "Inputs on both sides",
    ):  # fmt: skip
        assert said in text, said
    from mia_batch.attacks.registry import ATTACKS

    assert {*summary.methods, *summary.not_tried} >= set(ATTACKS)
    assert all(name in text for name in ATTACKS)


def test_the_same_audit_gives_the_same_page(page: str, audit: tuple[Summary, Evidence]) -> None:
    assert to_page(*audit) == page


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    elements = Elements(page)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            if address := attributes.get(name):
                assert address.startswith(("#", "data:image/png;base64,")), address
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, which nothing loads
    assert not re.search(r"url\((?!#)", page)


def test_charts_do_not_share_names_and_take_the_pages_colours(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    for name in re.findall(r'(?:url\(#|href="#)([^)"]+)', page):
        assert name in ids
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 7  # overview, ROC and scores of two attacks, loss, slices
    for chart in charts:
        assert not re.search(r"#[0-9a-fA-F]{6}\b", chart)
        assert re.search(r"<title[^>]*>\S.*?</title><desc[^>]*>\S", chart)
        assert "<style" not in chart


def hostile_audit(folder: Path) -> tuple[Summary, Evidence]:
    values = tuple(f"{text} {i}" for i, text in enumerate(HOSTILE))
    n = 400
    features = made_features(
        n, slices={"ward": (np.arange(n, dtype=np.int32) % len(values), values)},
        sample_id=np.array([f"{HOSTILE[i % len(HOSTILE)]}{i}".encode() for i in range(n)]),
    )  # fmt: skip
    keys = ("organisation", "auditor", "contact", "model", "version", "purpose", "personal_data", "unit_of_privacy",
            "nonmembers", "access", "knowledge", "rationale", "retest_if", "notes")  # fmt: skip
    dossier = {key: HOSTILE[i % len(HOSTILE)] for i, key in enumerate(keys)} | {"measures": HOSTILE}
    origin = {
        "config_file": f"/w/{HOSTILE[0]}/{HOSTILE[5]}.yaml", "digests": {HOSTILE[1]: HOSTILE[2]},
        "changes": [f"data.path={HOSTILE[6]}"], "versions": {"mia_batch": "1", HOSTILE[0]: HOSTILE[1]},
        "launches": [{"stage": HOSTILE[0], "host": HOSTILE[1]}],
    }  # fmt: skip
    return made_audit(
        folder, features=features, config=made_config(dossier=dossier), origin=origin,
        lost={f"bad{i}": text for i, text in enumerate(HOSTILE)},
    )  # fmt: skip


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    page = to_page(*hostile_audit(tmp_path))
    test_nothing_is_loaded_and_nothing_runs(page)
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f]*", page)
    text = html.unescape(page)
    for said in HOSTILE:
        assert shown(said) in text, said
    assert r"left\u202eright\u2066\u200b" in text
    assert r"a\x00b\x1b[31mc\x0d\x7f" in text
    assert "49" not in Elements(page).figures.values()  # {{ 7 * 7 }}
    assert "<b>x" not in page


def test_shown_text() -> None:
    assert shown("plain words\nof two lines") == "plain words\nof two lines"
    assert shown("日本語 é 🎉") == "日本語 é 🎉"
    assert shown("\ud800\U000e0001\u2028\ue000") == "\\ud800\\U000e0001\\u2028\\ue000"
    assert short("a\nb " + "c" * 50, 10) == "a b ccccc…"
    assert len(short("y" * 23)) == 22


def test_names_in_charts_are_not_matplotlibs_formulas() -> None:
    found = dict.fromkeys(HOSTILE, (0.5, 0.4, 0.6))
    chart = interval_chart("k", "t", "w", found, level=0.6)
    assert len(re.findall(r"<text", chart.svg)) >= len(HOSTILE)
    assert html.escape(short(HOSTILE[7]), quote=False) in chart.svg


@pytest.mark.parametrize(
    ("signals", "options", "state"),
    [
        ({"lr": 3.0}, {}, "leak"), ({"lr": 0.0}, {"features": made_features(4000, gap=0.0)}, "no leak"),
        ({"lr": 0.0}, {"n": 60}, "inconclusive"),
        ({}, {"lost": {"lr": "no fit has converged"}}, "inconclusive"),
    ],
)  # fmt: skip
def test_every_outcome_has_a_page(
    tmp_path: Path, signals: dict[str, float], options: dict[str, Any], state: str
) -> None:
    summary, evidence = made_audit(tmp_path, signals=signals, **options)
    page = to_page(summary, evidence)
    assert words.state_of(summary) == state
    assert words.HEADLINES[state] in page
    assert f'<body class="{state.replace(" ", "-")}">' in page
    assert wrong_figures(page, summary) == []
    assert all(words.HEADLINES[other] not in page for other in words.HEADLINES if other != state)


def test_a_model_that_cannot_be_audited_is_no_pass(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    untrained = made_features(400, logits=rng.normal(size=(400, 4)).astype(np.float32), loss=np.full(400, 2.0))
    summary, evidence = made_audit(tmp_path, features=untrained)
    page = to_page(summary, evidence)
    assert words.state_of(summary) == "not evaluable"
    assert words.HEADLINES["not evaluable"] in page
    assert html.escape(summary.verdict.sentence) in page
    assert "The strongest attack" not in page


def test_joint_rules_and_claims_have_pages(tmp_path: Path) -> None:
    summary, evidence = made_audit(tmp_path, config=made_config(gate="tutorial"))
    page = to_page(summary, evidence)
    assert "all above 0.6 for accuracy, precision, recall" in page
    joint, evidence = made_audit(tmp_path, config=made_config(gate={"rule": "any_above", "threshold": 0.9}))
    assert "decides; beside it" in to_page(joint, evidence)
    assert "controls no error" in to_page(joint, evidence)


def test_the_first_screen_says_how_sure_of_which_attack(tmp_path: Path) -> None:
    leak, evidence = made_audit(tmp_path)
    assert "would be called leaking by at most 5% of audits" in to_page(leak, evidence)
    none, evidence = made_audit(tmp_path, signals={"lr": 0.0, "knn": 0.1}, features=made_features(4000, gap=0.0))
    page = to_page(none, evidence)
    assert "A model above a level would pass at most 5% of audits" in page
    (name, decided), *_ = words.deciding_rules(none)
    assert decided.rule == "balanced_accuracy"
    assert f"<b>{name}</b>, is right on {decided.value:.1%} of records" in page
    assert re.search(rf"From {none.detectable.needed:.0f} scored samples a side on", page)  # type: ignore[union-attr]
    by_value = {"rules": [{"metric": "balanced_accuracy", "above": 0.6, "bound": "point"}]}
    points, evidence = made_audit(tmp_path, config=made_config(gate=by_value))
    assert points.verdict.outcome == "leak"
    assert words.how_sure(points) == ""


def test_the_commands_check_what_was_read(tmp_path: Path) -> None:
    outputs = tmp_path / "o'clock.npz"
    outputs.write_bytes(b"outputs")
    origin = {"digests": {"data.files": hashlib.sha256(b"outputs").hexdigest()}, "config_file": "/w/a.yaml"}
    summary, evidence = made_audit(tmp_path)
    config = summary.provenance["config"] | {"data": {"files": str(outputs)}}
    made = summary.model_copy(update={"provenance": summary.provenance | origin | {"config": config}})
    page = html.unescape(to_page(made, evidence))
    lines = re.search(r"Commands that repeat the audit.>(.*?)</pre>", page, re.DOTALL)[1].splitlines()  # type: ignore[index]
    said = [line.split()[0] for line in lines if not line.startswith("#")]
    assert said == ["mia-batch", "echo", "mia-batch", "mia-batch"]
    (check,) = (line for line in lines if line.startswith("echo"))
    for content, code in ((b"outputs", 0), (b"others", 1)):
        outputs.write_bytes(content)
        assert subprocess.run(check, shell=True, check=False, capture_output=True).returncode == code


def test_undefined_figures_have_their_reasons(tmp_path: Path) -> None:
    summary, evidence = made_audit(tmp_path, signals={"lr": 0.0}, n=200)
    raw = json.loads(to_json(summary))
    raw["methods"]["lr"]["metrics"]["precision"] = {
        "value": None, "low": None, "high": None, "reason": "no sample is predicted a member"
    }
    page = to_page(Summary.model_validate(raw), evidence)
    assert "no sample is predicted a member" in page
    assert Elements(page).figures["methods/lr/metrics/precision"].startswith(NONE)


def test_fewer_references_have_a_chart_and_a_sentence(tmp_path: Path) -> None:
    summary, evidence = made_audit(tmp_path, signals={"lira_fixed": 2.0, "lr": 1.0}, provenance={
        "lira_fixed": made_curve([2, 4, 8])
    })  # fmt: skip
    points = summary.methods["lira_fixed"].over_references
    assert [each.n_references for each in points] == [2, 4, 8]
    assert "over_references" not in summary.methods["lira_fixed"].provenance
    page = to_page(Summary.model_validate_json(to_json(summary)), evidence)
    section = html.unescape(re.search(r'<section id="references">.*?</section>', page, re.DOTALL)[0])  # type: ignore[index]
    assert 'href="#references"' in page
    assert section.count("<svg") == 1
    values = [each.metrics["auc"].value or 0.0 for each in points]
    assert f"From 4 to 8 references the AUC goes from {values[1]:.3f} to {values[2]:.3f}" in section
    assert re.findall(r"<tr><td[^>]*>(\d+)</td>", section) == ["2", "4", "8"]  # the numbers of the chart
    assert all(f"{value:.4g}" in section for value in values)


def test_a_summary_of_the_version_before_has_a_page() -> None:
    summary = read_summary(BEFORE)
    assert wrong_figures(to_page(summary, Evidence()), summary) == []


def test_twenty_attacks_and_a_thousand_classes_stay_small(tmp_path: Path) -> None:
    """All attacks have the slices of one: what they cost is not the page's."""
    names = [f"attack_{i}" for i in range(20)]
    one, _ = made_audit(
        tmp_path, features=made_features(24_000, n_classes=1000), signals={"attack_0": 1.0},
        config=made_config(report={"slices": {"class": True}}),
    )  # fmt: skip
    assert one.slices
    raw = json.loads(to_json(one))["slices"]
    for each in (*raw["slices"], raw):
        of_one = each.pop("metrics" if "metrics" in each else "worst")["attack_0"]
        each["metrics" if "name" in each else "worst"] = dict.fromkeys(names, of_one)
    summary, evidence = made_audit(tmp_path, signals={name: i / 10 for i, name in enumerate(names)})
    summary = summary.model_copy(update={"slices": SlicesSummary.model_validate(raw | {"n_attacks": 20})})
    page = to_page(summary, evidence)
    assert len(page.encode()) < 5_000_000 / 3
    assert page.count("class=999") >= 1
    assert wrong_figures(page, summary) == []


def test_a_million_rows_make_no_larger_page(tmp_path: Path) -> None:
    """A cross-fitted attack costs most: its bounds are those of thinned samples. Twenty of them take 20 s at most."""
    config = made_config(report={"records": 100})
    summary, few = made_audit(tmp_path, n=1000, signals={"lr": 1.0}, config=config)
    features = made_features(1_000_000)
    results = {"lr": made_result("lr", features, 1.0)}
    started = time.process_time()
    many = make_evidence(config, features, results, {"lr": (2.0, 2.0)}, summary.records)
    of_data = time.process_time() - started
    page = to_page(summary, many)
    assert of_data < 4  # 1 s where nothing else runs
    assert time.process_time() - started - of_data < 5
    assert len(page) < 1.2 * len(to_page(summary, few))


def test_the_config_on_the_page_is_one_that_runs(tmp_path: Path, write_config: Any) -> None:
    config = load_config(write_config({"dossier": {"model": "m", "retest": "2031-05-01"}}))
    summary, evidence = made_audit(tmp_path, origin={"config": config.resolved()})
    text = html.unescape(re.search(r'aria-label="Config">(.*?)</pre>', to_page(summary, evidence), re.DOTALL)[1])  # type: ignore[index]
    again = tmp_path / "again.yaml"
    again.write_text(text)
    assert load_config(again).resolved() == config.resolved()
    assert yaml.safe_load(text)["dossier"]["retest"] == "2031-05-01"
