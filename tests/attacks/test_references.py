"""Attacks with references against known answers, naive loops, closed forms, and every edge of their input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_references import BY_NAME, NAMES, OFFLINE, ONLINE, audit, can_be_made, references_of, result_of, samples_of
from naive_references import naive, naive_shares

from mia_batch.attacks import lira, ratio
from mia_batch.attacks.base import AttackSettings
from mia_batch.attacks.bayesian import lira_bayes
from mia_batch.attacks.differences import squared_difference
from mia_batch.attacks.ratio import A_VALUES, log_mean_p, log_p, log_p_offline, n_dominated, rmia_scores, tuned_a
from mia_batch.attacks.registry import ATTACKS
from mia_batch.attacks.sides import References, mean_of
from mia_batch.metrics.ranking import auc, best_threshold
from mia_batch.samples import IN_AND_OUT, TWO_IN_AND_OUT, Samples
from mia_batch.settings.schema import AttackConfig
from mia_batch.stages.attack import make_samples, run_attacks
from mia_batch.stages.attack_settings import lacking

RATIOS = ["rmia", "rmia_offline", "log_ratio", "log_ratio_offline"]


def scores_of(name: str, refs: References, **params: float) -> np.ndarray:
    """Of every query, before the population."""
    return BY_NAME[name].score(refs, **params).values


def logit(p: list[float] | list[list[float]]) -> np.ndarray:
    return np.log(np.asarray(p) / (1 - np.asarray(p)))


def some_references(n: int, k: int, n_queries: int = 1, seed: int = 0, share: float = 0.5) -> References:
    """Inclusion by independent coins: sides may be missing."""
    rng = np.random.default_rng(seed)
    inside = (rng.random((n, k)) < share).astype(np.int8)
    return references_of(audit(n, n_queries=n_queries, inside=inside, seed=seed))


# --- known answers ---------------------------------------------------------------------------------------------------


def test_the_ratio_family_by_hand() -> None:
    """Four samples and four references, from published code."""
    P = [[0.6, 0.4, 0.2, 0.7], [0.8, 0.5, 0.4, 0.5], [0.2, 0.3, 0.2, 0.6], [0.4, 0.6, 0.2, 0.4]]
    inside = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 1, 1, 0]], np.int8).T
    refs = References(logit([[0.9], [0.5], [0.2], [0.8]]), logit(P).T[:, np.newaxis, :], inside)
    p_in, p_out = (np.exp(each[:, 0]) for each in refs.both(log_mean_p))
    assert (p_in + p_out) / 2 == pytest.approx([0.5, 0.45, 0.25, 0.55], abs=1e-6)
    log_r = ratio.log_ratio(refs).values
    assert np.exp(log_r[:, 0]) == pytest.approx([1.8, 1.1111111, 0.8, 1.4545455], abs=1e-6)
    population = np.array([2, 3])
    assert (n_dominated(log_r, population, 1.0) / 2).tolist() == [1.0, 0.5, 0.5, 1.0]
    scores = rmia_scores(log_r, population)
    assert np.argsort(-scores).tolist() == [0, 3, 1, 2]
    assert (np.floor(2 * scores) / 2).tolist() == [1.0, 0.5, 0.5, 1.0]


def test_the_squared_difference_by_hand() -> None:
    inside = np.array([[1, 1, 1, 0, 0, 0]], np.int8)
    refs = References(np.array([[3.5]]), np.array([[[3.0, 4, 5, 0, 1, -1]]]), inside)
    assert squared_difference(refs).values == pytest.approx(12.0, abs=1e-6)
    reverse = References(refs.target, refs.others, 1 - inside)
    assert squared_difference(reverse).values == 0.0


# --- naive references ------------------------------------------------------------------------------------------------


SIZES = [(1, 1, 0.5), (2, 1, 0.5), (3, 2, 0.5), (8, 1, 0.8), (64, 1, 0.5)]


@pytest.mark.parametrize(
    ("name", "k", "n_queries", "share"),
    [(name, *size) for name in NAMES for size in SIZES if name in OFFLINE or size[0] > 1],
)
def test_scores_are_those_of_a_loop(name: str, k: int, n_queries: int, share: float) -> None:
    refs = some_references(14, k, n_queries, seed=k, share=share)
    params = {"a": 0.4} if name in RATIOS else {}
    found = scores_of(name, refs, **params)
    assert found == pytest.approx(naive(name, refs, **params), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_rows_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = some_references(40, 5, 2)
    whole = scores_of(name, refs)
    monkeypatch.setattr("mia_batch.attacks.sides.BLOCK_VALUES", 30)
    assert np.array_equal(scores_of(name, refs), whole)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.3, 2.0])
def test_rmia_is_the_share_of_all_pairs_and_ties_go_by_log_r(gamma: float) -> None:
    rng = np.random.default_rng(3)
    log_r = np.round(rng.normal(size=(120, 2)), 1)  # many ties
    population = np.flatnonzero(rng.random(120) < 0.4)
    shares, scores = naive_shares(log_r, population, gamma), rmia_scores(log_r, population, gamma=gamma)
    m = 2 * len(population)
    # exp(log_r) rounds where a ratio is gamma itself; 1.3, 2 and .5 are no ratio of these.
    assert (n_dominated(log_r, population, gamma) == np.round(shares * m)).all() or gamma == 1.0
    keys = list(zip(n_dominated(log_r, population, gamma).tolist(), log_r.mean(axis=1).tolist(), strict=True))
    for i in range(120):
        for j in range(120):
            assert (scores[i] > scores[j]) == (keys[i] > keys[j])
            assert (scores[i] == scores[j]) == (keys[i] == keys[j])
    assert ((scores >= 0) & (scores < 1 + 1 / m)).all()


def test_for_one_query_rmia_ranks_by_log_r_whatever_gamma_is() -> None:
    """Even where ratios differ in the last bits alone, as of samples that every network is sure of."""
    log_r = np.concatenate([np.random.default_rng(0).normal(size=100), np.arange(50) * 1e-18, [1e3, -1e3]])
    for gamma in (0.7, 1.0, 5.0):
        scores = rmia_scores(log_r[:, np.newaxis], np.arange(40), gamma=gamma)
        assert np.array_equal(np.argsort(scores, kind="stable"), np.argsort(log_r, kind="stable"))
        assert len(np.unique(scores)) == len(np.unique(log_r))


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_the_bayesian_attack_becomes_fixed_lira_with_a_wider_variance() -> None:
    refs = references_of(audit(50, 8))
    found = lira_bayes(refs, k0=1e-9, nu0=1e9).values
    inside, out = lira.sides(refs)
    expected = [
        lira.log_normal(refs.target, side.centre, variance * (1 + 1 / side.n))
        for side, variance in zip((inside, out), lira.pooled_variances(inside, out), strict=True)
    ]
    assert found == pytest.approx(expected[0] - expected[1], abs=1e-5)


def test_with_one_variance_lira_ranks_as_the_squared_difference() -> None:
    """Pairs, K = 2: there is no variance to see, and one for all is assumed."""
    refs = references_of(audit(200, 2))
    right_way = np.greater(*refs.both(mean_of))[:, 0]
    one, other = lira.lira_fixed(refs).values[right_way], squared_difference(refs).values[right_way]
    assert 2 * one == pytest.approx(other)


def test_a_is_one_takes_p_out_and_zero_half_of_it() -> None:
    log_out = np.log([0.3, 1e-300, 1.0])
    assert log_p_offline(log_out, 1.0) == pytest.approx(log_out)
    assert np.exp(log_p_offline(log_out, 0.0)) == pytest.approx([0.65, 0.5, 1.0])


def test_probabilities_near_one_keep_their_precision() -> None:
    """1 - p is 1e-30 and less: log r of the target, of references that are as sure, is a number of that size."""
    phi = np.array([[70.0], [71.0]])
    refs = References(phi, np.full((2, 1, 2), 70.0), np.array([[1, 0], [1, 0]], np.int8))
    found = ratio.log_ratio(refs).values[:, 0]
    assert found[0] == 0.0
    assert found[1] == pytest.approx(math.exp(-70) - math.exp(-71), rel=1e-9)
    assert log_p(phi)[:, 0] == pytest.approx(-np.exp(-phi[:, 0]), rel=1e-12)


def test_a_is_tuned_by_references_that_are_attacked_with_each_other() -> None:
    """By the mean AUC over the first four, each without its complement."""
    refs = references_of(audit(300, 6, seed=4))
    areas = []
    for a in A_VALUES:
        of_a = []
        for k in range(4):
            others = [j for j in range(6) if j not in (k, k ^ 1)]
            left = References(refs.others[:, :, k], refs.others[:, :, others], refs.inside[:, others])
            there = (left.inside == 0).any(axis=1)
            scores = naive("log_ratio_offline", left, a=a)[:, 0]
            of_a.append(auc(refs.inside[there, k], scores[there]).value)
        areas.append(np.mean(of_a))
    assert areas[A_VALUES.index(tuned_a(refs))] == pytest.approx(max(areas))
    target_turned = References(-refs.target, refs.others, refs.inside)
    assert tuned_a(target_turned) == tuned_a(refs)


@pytest.mark.parametrize("inside", [np.ones((20, 1)), np.zeros((20, 3)), np.arange(20)[:, np.newaxis] % 2], ids=str)
def test_where_no_reference_can_be_attacked_a_is_fixed(inside: np.ndarray) -> None:
    refs = references_of(audit(20, inside=inside.astype(np.int8)))
    assert tuned_a(refs) == 0.3


# --- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("evaluation", ["cross_fit", "holdout"])
def test_queries_are_averaged_and_decisions_are_those_of_the_fit_rows(name: str, evaluation: str) -> None:
    samples = audit(60, 4, n_queries=2, evaluation=evaluation)
    params = {"a": 0.4} if name in RATIOS else {}
    result = result_of(name, samples, **params)
    log_r = naive(name, references_of(samples), **params)
    for number, split in enumerate(samples.splits):
        values = log_r.mean(axis=1)
        if "rmia" in name:
            values = rmia_scores(log_r, np.array([row for row in split.fit if samples.member[row] == 0]))
        rows = split.evaluated
        assert result.scores[rows] == pytest.approx(values[rows], abs=1e-9)
        limit = result.provenance["thresholds"][number]
        assert limit == pytest.approx(best_threshold(values[split.fit], samples.member[split.fit])[0], abs=1e-9)
        assert np.array_equal(result.predicted[rows] == 1, result.scores[rows] >= limit)
    assert result.evaluated.all() == (evaluation == "cross_fit")


@pytest.mark.parametrize("name", NAMES)
def test_members_score_higher(name: str) -> None:
    result = result_of(name, audit(600, 8))
    assert auc(result.member, result.scores).value > 0.65
    assert ATTACKS[name] is BY_NAME[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_membership_of_scored_rows_changes_nothing(name: str) -> None:
    samples = audit(evaluation="holdout")
    (split,) = samples.splits
    member = samples.member.copy()
    member[split.evaluated] = 1 - member[split.evaluated]
    one, other = result_of(name, samples), result_of(name, Samples(member, [split], **samples.columns))
    assert np.array_equal(one.scores, other.scores, equal_nan=True)
    assert np.array_equal(one.predicted, other.predicted)


@pytest.mark.parametrize("name", [name for name in NAMES if "rmia" not in name])
def test_no_score_knows_the_target_s_membership(name: str) -> None:
    """RMIA alone uses that of the fit rows, for its population."""
    samples = audit()
    turned = Samples(1 - samples.member, samples.splits, **samples.columns)
    assert np.array_equal(result_of(name, samples).scores, result_of(name, turned).scores)


@pytest.mark.parametrize("name", NAMES)
def test_samples_mapped_from_a_file_give_the_same(name: str) -> None:
    samples = audit(80)
    again = Samples.of_arrays({key: np.array(array) for key, array in samples.arrays().items()})
    assert np.array_equal(result_of(name, samples).scores, result_of(name, again).scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_s_score_depends_on_no_order(name: str) -> None:
    refs = some_references(60, 6)
    order = np.random.default_rng(1).permutation(60)
    label = refs.label
    assert label is not None
    mixed = References(refs.target[order], refs.others[order][:, :, ::-1], refs.inside[order][:, ::-1], label[order])
    params = {"a": 0.4} if name in RATIOS else {}
    assert scores_of(name, mixed, **params) == pytest.approx(scores_of(name, refs, **params)[order])


def test_what_parameters_may_be() -> None:
    assert BY_NAME["lira"].check({"k0": (1,)}) == [("params.k0", "is unknown: lira takes no parameters")]
    assert BY_NAME["lira_bayes"].check({"a": (1,)}) == [("params.a", "is unknown: lira_bayes takes k0, nu0")]
    assert BY_NAME["lira_bayes"].check({"k0": (0.5,), "nu0": (1e3,)}) == []
    assert BY_NAME["lira_bayes"].check({"k0": (0,)}) == [("params.k0", "must be one number above 0, got [0]")]
    assert BY_NAME["rmia"].check({"a": (0,), "gamma": (2,)}) == []
    wrong = {"a": (1.5,), "gamma": (1, 2)}
    assert BY_NAME["rmia"].check(wrong) == [
        ("params.a", "must be one number in [0, 1], got [1.5]"),
        ("params.gamma", "must be one number above 0, got [1, 2]"),
    ]  # fmt: skip
    for value in (math.nan, math.inf, "1", True, None):
        assert len(BY_NAME["rmia"].check({"gamma": (value,)})) == 1


def test_parameters_are_told_and_kept() -> None:
    samples = audit()
    provenance = result_of("lira_bayes", samples, k0=0.5).provenance
    assert (provenance["k0"], provenance["nu0"]) == (0.5, 16.0)
    assert result_of("rmia_offline", samples, a=0.7, gamma=2).provenance["a"] == 0.7
    assert result_of("rmia_offline", samples).provenance["a"] == tuned_a(references_of(samples))
    more = result_of("lira_bayes", samples, nu0=1.0)
    assert not np.array_equal(more.scores, result_of("lira_bayes", samples).scores)


def test_workers_give_what_this_process_does_and_the_configuration_its_parameters() -> None:
    samples = audit(120)
    params = {"lira_bayes": {"nu0": [4]}, "rmia": {"gamma": [2.0], "a": [0.5]}}
    methods = tuple({"method": name, "params": params.get(name, {})} for name in NAMES)
    attack = AttackConfig(methods=methods, eval="holdout")
    made = make_samples(samples.member, attack, **samples.columns)
    for name, result in run_attacks(made, attack, n_jobs=2).items():
        here = result_of(name, made, **{key: values[0] for key, values in params.get(name, {}).items()})
        assert np.array_equal(result.scores, here.scores, equal_nan=True)
        assert np.array_equal(result.predicted, here.predicted)
    with pytest.raises(ValueError, match=r"params\.nu0: must be one number above 0, got \[4, 5\]"):
        AttackConfig(methods=({"method": "lira_bayes", "params": {"nu0": [4, 5]}},))


def test_tasks_can_be_estimated_before_there_are_columns() -> None:
    samples = audit()
    alone = Samples(samples.member, samples.splits)
    for attack in BY_NAME.values():
        (one,), (other,) = (attack.tasks(each, AttackSettings()) for each in (alone, samples))
        assert 0 < one.cost < other.cost
        assert 0 < one.memory < other.memory


# --- too few references ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_reference_has_offline_attacks_only(name: str) -> None:
    inside = (np.random.default_rng(0).random((200, 1)) < 0.5).astype(np.int8)
    samples = audit(inside=inside)
    why = lacking(name, samples.known)
    if name in OFFLINE:
        assert why == ""
        result = result_of(name, samples)
        assert result.provenance["n_neutral"] == inside.sum()
        assert result.provenance["n_offline"] == 0
        assert np.isfinite(result.scores).all()
    else:
        one, two = "a reference trained on it and another not", "two references trained on it and two not"
        assert why == f"it needs a sample with {two if name == 'lira' else one}: there is none"


def test_a_pair_is_enough_but_for_variances_of_a_sample_s_own() -> None:
    samples = audit(k=2)
    assert [name for name in NAMES if not can_be_made(name, samples)] == ["lira"]
    assert TWO_IN_AND_OUT in audit(k=4).known


def test_proxies_by_class_are_the_only_ones_that_need_labels() -> None:
    assert [name for name in NAMES if "label" in ATTACKS[name].needs] == ["pmia_class"]


def test_without_references_they_are_named_in_few_words() -> None:
    for name in NAMES:
        assert lacking(name, {"member", "label"}) == "it needs reference models, which these samples do not have"
    nothing_in = audit(inside=np.zeros((200, 2), np.int8))
    assert IN_AND_OUT not in nothing_in.known
    assert lacking("pmia", nothing_in.known) == "it needs a reference trained on some of the samples: there is none"
    nothing_out = audit(inside=np.ones((200, 2), np.int8))
    found = lacking("calibration", nothing_out.known)
    assert found == "it needs a reference not trained on some of the samples: there is none"


def test_samples_with_a_missing_side_fall_back_and_are_counted() -> None:
    """Rows 0..9 lack IN, 10..19 OUT, 20..29 have one IN, the rest two of each."""
    inside = np.tile(np.array([1, 1, 0, 0], np.int8), (200, 1))
    inside[:10], inside[10:20], inside[20:30] = 0, 1, [1, 0, 0, 0]
    samples = audit(inside=inside)
    counts = {name: result_of(name, samples).provenance for name in NAMES}
    found = {name: (each["n_offline"], each["n_neutral"]) for name, each in counts.items()}
    expected = dict.fromkeys(OFFLINE, (0, 10)) | dict.fromkeys(ONLINE, (10, 10))
    expected |= {"lira": (20, 10), "lira_bayes": (20, 0), "squared_difference": (20, 0)}
    assert found == expected
    refs = references_of(samples)
    offline = lira.lira_offline(refs).values[:10] / lira.lira_fixed(refs).values[:10]
    centres = [lira.sides(refs, medians=medians)[1].centre[:10] for medians in (True, False)]
    assert offline == pytest.approx((refs.target[:10] - centres[0]) / (refs.target[:10] - centres[1]))
    assert (lira.lira(refs).values[10:20] == 0).all()
    gap = np.nanmean(np.subtract(*(side.centre for side in lira.sides(refs))))
    order = np.argsort(squared_difference(refs).values[:10, 0])
    assert gap > 0
    assert np.array_equal(order, np.argsort((refs.target[:10] - centres[1])[:, 0]))


# --- degenerate numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_extreme_phi_and_unbalanced_inclusion_give_finite_scores(name: str, share: float) -> None:
    rng = np.random.default_rng(5)
    n, k = 200, 8
    inside = (rng.random((n, k)) < share).astype(np.int8)
    inside[0] = [1, 1, 0, 0, 1, 0, 1, 0]
    phi = rng.choice([-1e3, -40.0, 0.0, 40.0, 1e3], size=(n, 1, k + 1))
    member, label = (np.arange(n) % 2).astype(np.int8), np.arange(n) % 3
    result = result_of(name, samples_of(phi[:, :, 0], phi[:, :, 1:], inside, member, label))
    assert np.isfinite(result.scores).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e3, -1e3])
def test_samples_that_all_answer_the_same_tie(name: str, value: float) -> None:
    """No variance at all: the floor keeps the densities finite, and nothing tells anybody from anybody."""
    samples = audit(60, 6)
    columns = dict(samples.columns)
    columns["query_phi"], columns["reference_phi"] = (np.full_like(columns[name], value) for name in
                                                      ("query_phi", "reference_phi"))
    columns["label"] = np.zeros(60, np.int32)  # one class
    result = result_of(name, Samples(samples.member, samples.splits, **columns))
    # Shares of populations of several sizes, and sums that round, may differ; the rest is one number.
    assert np.ptp(result.scores) < 0.05
    assert auc(result.member, np.round(result.scores, 1)).value == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_references_that_agree_exactly_leave_no_nan(name: str) -> None:
    """Each sample's references say the same, the target something else."""
    samples = audit(60, 6)
    columns = dict(samples.columns)
    columns["reference_phi"] = np.repeat(columns["reference_phi"][:, :, :1], 6, axis=2)
    assert np.isfinite(result_of(name, Samples(samples.member, samples.splits, **columns)).scores).all()


def test_proxies_of_a_class_that_no_reference_has_seen_are_all_samples() -> None:
    samples = audit(90, 4)
    samples.columns["reference_in"] = np.where(samples.columns["label"][:, np.newaxis] == 2, 0,
                                               samples.columns["reference_in"]).astype(np.int8)
    refs = references_of(samples)
    unseen = samples.columns["label"] == 2
    assert np.array_equal(scores_of("pmia_class", refs)[unseen], scores_of("pmia", refs)[unseen])
    assert not np.array_equal(scores_of("pmia_class", refs)[~unseen], scores_of("pmia", refs)[~unseen])


def test_arrays_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be of shapes \(n, q\), \(n, q, k\) and \(n, k\)"):
        References(np.zeros((5, 1)), np.zeros((5, 1, 3)), np.zeros((5, 2), np.int8))
