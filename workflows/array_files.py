"""The arrays that steps leave in ``.npz`` files, read whole and without objects, which would be code."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from pipeline.errors import one_line
from workflows.json_documents import damaged

if TYPE_CHECKING:
    import numpy as np


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of an ``.npz`` file by its name.

    Raises ``InputError``, with what to do, for a file that is truncated, damaged or holds objects;
    ``OSError`` for one that is missing or cannot be read.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (BadZipFile, zlib.error, EOFError, ValueError, TypeError, AttributeError) as error:
        raise damaged(path, one_line(error)) from error
    for name, values in arrays.items():
        if not isinstance(values, np.ndarray):
            raise damaged(path, f"{name} is no array")
    return arrays
