"""Audits as rows of a history, and as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Entry:
    """One audit of the history.

    Attributes:
        run: name of the run directory.
        created: when the run was set up, ISO 8601, UTC.
        checkpoint: file name of the checkpoint.
        sha256: of the checkpoint.
        state: as in `status`: done, or of the first stage that is not.
        leak: the verdict; None until there is one, and where it is inconclusive.
        auc: the highest over the attacks, in [0, 1]; None where undefined.
        accuracy: likewise.
        verdict_change: against the audit before of the same training by the same attacks: "new" without one, "better"
            or "worse" if the interval of the difference of AUC is on one side of 0, else "same", or "unclear" where
            the verdict is another one; "" for an audit that cannot be compared.
        auc_change: the difference of AUC; `auc_change_low` and `auc_change_high` are its interval.
        detail: what else is to be said: the deciding sentence, or how far the run is.
        outcome: the verdict in a word: leak, no leak or inconclusive; "" until there is one.
        training: of which training the checkpoint is; "" where run.json cannot be read.
        step: of it, such as "10 1875" for epoch and step; "" where nothing tells it.
        modified: when the checkpoint was last changed, ISO 8601, UTC; "" in runs that did not record it.
        auc_low: of the interval of `auc`, which does not allow for the choice of the attack; `auc_high` likewise.
        auc_attack: whose AUC that is. So of `balanced_accuracy`, and of `tpr`, the TPR at an FPR of 0.01.
        member_accuracy: of the model itself; None where it is not known.
        test_accuracy: likewise, on the non-members.
    """

    run: str
    created: str = ""
    checkpoint: str = ""
    sha256: str = ""
    state: str = "damaged"
    leak: bool | None = None
    auc: float | None = None
    accuracy: float | None = None
    verdict_change: str = ""
    auc_change: float | None = None
    detail: str = ""
    outcome: str = ""
    training: str = ""
    step: str = ""
    modified: str = ""
    auc_change_low: float | None = None
    auc_change_high: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    auc_attack: str = ""
    balanced_accuracy: float | None = None
    balanced_accuracy_low: float | None = None
    balanced_accuracy_high: float | None = None
    balanced_accuracy_attack: str = ""
    tpr: float | None = None
    tpr_low: float | None = None
    tpr_high: float | None = None
    tpr_attack: str = ""
    member_accuracy: float | None = None
    test_accuracy: float | None = None


def entries_json(entries: Sequence[Entry]) -> str:
    """An array of objects."""
    return json.dumps([asdict(entry) for entry in entries], indent=1)


def entries_csv(entries: Sequence[Entry]) -> str:
    """A line for each behind the names; what is no text in UTF-8 has its bytes' escapes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    return text.getvalue().encode("utf-8", "backslashreplace").decode().removesuffix("\n")
