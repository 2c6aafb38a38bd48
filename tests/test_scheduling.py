"""What one test's libraries do to this process must not reach the next test."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import take_back_priority


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="scheduling as Linux has it")
def test_the_priority_that_a_video_encoder_took_is_given_back(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream: Any = film.add_stream("libsvtav1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        film.mux(stream.encode(None))
    if os.geteuid() == 0:
        assert os.sched_getscheduler(0) != os.SCHED_OTHER, "the encoder has mended its ways: remove this"
    take_back_priority()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
