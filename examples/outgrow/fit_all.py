"""Do all fits one after the other, in the order of the units of `inv map`."""

import itertools
from pathlib import Path

from fit import write

SEEDS, ALPHAS = range(1, 4), (0.5, 1.5)

for number, (seed, alpha) in enumerate(itertools.product(SEEDS, ALPHAS), start=1):
    write(Path("results") / str(number), seed, alpha)
    print(f"unit {number}: seed {seed}, alpha {alpha}")
