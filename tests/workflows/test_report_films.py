"""Films: every start is played to its end, in the size asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from tests.workflows.report_samples import clips
from workflows.report_films import comparison_gif


@pytest.mark.parametrize("at_once", [1, 4])
def test_comparison_plays_every_start_and_holds_the_result(tmp_path: Path, at_once: int) -> None:
    """Lengths add up to every frame of the longer side plus the pause on the result."""
    out = comparison_gif(*clips(4), ("base", "RECAP"), tmp_path / "c.gif", fps=10, tile=64, at_once=at_once)
    with Image.open(out) as film:
        total_ms = 0
        for i in range(film.n_frames):  # type: ignore[attr-defined]  # of GIF images only
            film.seek(i)
            total_ms += film.info["duration"]
        assert film.info["loop"] == 0
        last = np.asarray(film.convert("RGB"))
    pages = 4 // at_once
    assert total_ms == pytest.approx(pages * (24 * 100 + 1600), abs=1)
    right = last[:, last.shape[1] // 2 :]
    # Every attempt on the right succeeded: its last picture has a green disc.
    assert (np.abs(right.astype(int) - (0, 158, 115)).sum(axis=2) < 60).sum() > 40


def test_comparison_shrinks_to_its_limit_or_says_that_it_cannot(tmp_path: Path) -> None:
    """A film over its limit is made smaller; one that cannot be is an error and no file."""
    sides = clips(2)
    whole = comparison_gif(*sides, ("base", "RECAP"), tmp_path / "a.gif", tile=64).stat().st_size
    small = comparison_gif(*sides, ("base", "RECAP"), tmp_path / "b.gif", tile=64, max_bytes=whole // 2)
    assert small.stat().st_size <= whole // 2
    with pytest.raises(InputError, match="fewer starts"):
        comparison_gif(*sides, ("base", "RECAP"), tmp_path / "c.gif", tile=24, max_bytes=100)
    with pytest.raises(InputError, match="same starts"):
        comparison_gif(sides[0], sides[1][:1], ("base", "RECAP"), tmp_path / "c.gif")
    assert not (tmp_path / "c.gif").exists()
