"""What `audit` gives back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_batch.api.plots import plot_roc
from mia_batch.attacks.base import AttackResult
from mia_batch.metrics.base import Estimate
from mia_batch.report.html import to_html
from mia_batch.report.records import record_columns, write_records
from mia_batch.report.summary import COLUMNS, Summary, metric_rows, to_json
from mia_batch.report.text import full_text
from mia_batch.stages.records import Records
from mia_batch.verdict.rules import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class AuditResult:
    """An audit's outcome. Printed, it is the text of `mia-batch run`; in a notebook, a table.

    Attributes:
        verdict: `outcome` (leak, no leak, inconclusive), `sentence`, `cautions` and more.
        metrics: by attack and name, each with `value`, `low`, `high` and `reason`.
        summary: everything, as in summary.json.
        attacks: each attack's scores and decisions by row; NaN and -1 for rows that it did not score.
        shown: metrics in the printed line of each attack.
        records: what is said of each sample: see `to_records`.
    """

    verdict: Verdict
    metrics: Mapping[str, Mapping[str, Estimate]]
    summary: Summary
    attacks: Mapping[str, AttackResult] = field(compare=False)
    shown: tuple[str, ...] = ()
    records: Records | None = field(default=None, compare=False)

    def to_json(self) -> str:
        """The text of summary.json."""
        return to_json(self.summary)

    def to_frame(self) -> pd.DataFrame:
        """A row for each attack and metric, as in summary.csv: method, metric, value, low, high, reason, slice.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        frame = pd.DataFrame(metric_rows(self.summary), columns=list(COLUMNS))
        return frame.astype(dict.fromkeys(("value", "low", "high"), float))

    def to_records(self) -> pd.DataFrame:
        """A row for each sample, as in records.csv: whose it is, and of each attack score, p, claimed and rank.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_records needs pandas: pip install pandas") from error
        assert self.records is not None
        return pd.DataFrame(dict(record_columns(self.records.samples, self.records.attacks)))

    def write_records(self, path: str | os.PathLike[str]) -> None:
        """Write records.csv.

        Raises:
            InputError: it cannot be written.
        """
        assert self.records is not None
        write_records(Path(path), self.records.samples, self.records.attacks)

    def plot_roc(self, ax: Any = None) -> Axes:
        """The attacks' ROC curves on both logarithmic axes, with TPR at FPR 0.01 and 0.001.

        Args:
            ax: matplotlib's axes to draw on; None for new ones.

        Raises:
            ImportError: matplotlib is not installed.
        """
        return plot_roc(self.attacks, self.metrics, ax)

    def __repr__(self) -> str:
        return full_text(self.summary, self.shown, width=shutil.get_terminal_size((80, 24)).columns)

    def _repr_html_(self) -> str:
        return to_html(self.summary)
