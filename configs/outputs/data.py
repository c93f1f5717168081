"""Write forest.npz beside this file, or where it is told: outputs of a forest that has memorised its training data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

WRONG_LABELS = 0.3  # what is wrong cannot be learned, only memorised
SEED = 1


def main(path: Path) -> None:
    """Fit the forest on half of scikit-learn's digits, and ask it for all of them."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(SEED)
    wrong = rng.random(len(y)) < WRONG_LABELS
    label = np.where(wrong, rng.integers(0, 10, len(y)), y)
    member = rng.random(len(y)) < 0.5
    forest = RandomForestClassifier(n_estimators=50, random_state=SEED).fit(X[member], label[member])
    np.savez(path, probabilities=forest.predict_proba(X), label=label, member=member)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("forest.npz"))
