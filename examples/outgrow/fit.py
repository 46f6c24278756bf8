"""Estimate the tail of a random walk for one seed and one alpha, and write it."""

import argparse
import json
import os
import random
from pathlib import Path

STEPS, WALKS = 200, 300


def fit(seed: int, alpha: float) -> dict[str, float]:
    """Return how often a walk of STEPS steps ends beyond alpha standard deviations."""
    chance = random.Random(f"{seed} {alpha}")  # noqa: S311 - nothing is secret here
    limit = alpha * STEPS**0.5
    ends = [sum(chance.choice((-1, 1)) for _ in range(STEPS)) for _ in range(WALKS)]
    return {"seed": seed, "alpha": alpha, "tail": sum(e > limit for e in ends) / WALKS}


def write(folder: Path, seed: int, alpha: float) -> None:
    """Write the result to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fit.json").write_text(json.dumps(fit(seed, alpha)) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--alpha", type=float, required=True)
    asked = parser.parse_args()
    write(Path(os.environ["ONEBOX_UNIT_OUTPUTS"]), asked.seed, asked.alpha)
