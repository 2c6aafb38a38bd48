"""A training for the kill test: trains, and at some point stands still until it is killed.

Arguments: the folder to write to, the resume file, the step at which to stand still.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.value_model.synthetic import BLUE, RED, SMALL, picture_table
from value_model.training import train_fold

# Noise, shift and dropout: every source of chance there is. Patience, so that nothing stops it early.
CONFIG = replace(SMALL, steps=60, evaluate_every=10, patience=50)
DATA = picture_table(16, np.random.default_rng(4), honest=False, tasks=(RED, BLUE))


def main() -> None:
    """Says "standing still" when what is left to do is to be killed."""
    out, resume, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def stand_still(done: int, _total: int) -> None:
        if done >= stop_at:
            print("standing still", flush=True)
            time.sleep(600)

    train_fold(*DATA, CONFIG, 1, 0, out, stand_still, resume=resume)


if __name__ == "__main__":
    main()
