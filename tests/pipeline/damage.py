"""Damages episode files in every way that disks, networks and people know."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pipeline.episode import STATE_FIELDS

DATASETS = (
    *(f"observation/state/{field.name}" for field in STATE_FIELDS),
    "observation/images/table",
    "observation/images/wrist",
    "camera_timestamp_ns/table",
    "action",
    "policy_action",
    "source",
    "timestamp_ns",
)
ATTRIBUTES = ("id", "task", "rate_hz", "cameras", "created", "extra", "truncated", "dropped", "fingerprint")


def flip_bits(path: Path, rng: np.random.Generator) -> None:
    """One to thirty bits, anywhere."""
    content = np.fromfile(path, np.uint8)
    for position in rng.integers(0, len(content), rng.integers(1, 31)):
        content[position] ^= 1 << rng.integers(0, 8)
    content.tofile(path)


def flip_bits_of_the_structure(path: Path, rng: np.random.Generator) -> None:
    """In the first 4 KiB, where groups and attributes lie."""
    content = np.fromfile(path, np.uint8)
    for position in rng.integers(0, min(len(content), 4096), rng.integers(1, 6)):
        content[position] ^= 1 << rng.integers(0, 8)
    content.tofile(path)


def blank(path: Path, rng: np.random.Generator) -> None:
    """A stretch of zeros or noise, as a lost disk block leaves."""
    content = np.fromfile(path, np.uint8)
    start = int(rng.integers(0, len(content)))
    length = int(rng.integers(1, 4096))
    content[start : start + length] = 0 if rng.random() < 0.5 else rng.integers(0, 256)
    content.tofile(path)


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Cut off at any offset."""
    with path.open("r+b") as file:
        file.truncate(int(rng.integers(0, path.stat().st_size)))


def append_noise(path: Path, rng: np.random.Generator) -> None:
    """Noise behind the end and a hole of zeros before it."""
    with path.open("r+b") as file:
        file.truncate(int(rng.integers(100, path.stat().st_size)))
        file.seek(0, 2)
        file.write(bytes(500) + rng.bytes(700))


def retype_dataset(path: Path, rng: np.random.Generator) -> None:
    """A dataset of another type, shape or kind, or none."""
    name = str(rng.choice(DATASETS))
    with h5py.File(path, "r+") as file:
        length = len(file["timestamp_ns"])
        del file[name]
        kinds: list[Callable[[], object]] = [
            lambda: None,
            lambda: file.create_group(name),
            lambda: file.create_dataset(name, data=np.zeros((length, 3))),
            lambda: file.create_dataset(name, data=["text"] * length, dtype=h5py.string_dtype()),
            lambda: file.create_dataset(name, data=7.0),
            lambda: file.create_dataset(name, shape=(2**40,), dtype="uint8", chunks=(2**16,), fillvalue=1),
            lambda: file.create_dataset(name, data=np.zeros(length, [("a", "i4"), ("b", "f8")])),
            lambda: file.__setitem__(name, h5py.SoftLink("/" + name)),
            lambda: file.__setitem__(name, h5py.ExternalLink("/dev/zero", "/x")),
        ]
        kinds[rng.integers(len(kinds))]()


def retype_attribute(path: Path, rng: np.random.Generator) -> None:
    """An attribute of another type, or none."""
    name = str(rng.choice((*ATTRIBUTES, "schema_version")))
    values = ["text", b"\xff\xfe", -1, np.nan, [1, 2, 3], np.zeros((2, 2)), h5py.Empty("f"), "{", "[1]", None]
    with h5py.File(path, "r+") as file:
        value = values[rng.integers(len(values))]
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value


def spoil_image(path: Path, rng: np.random.Generator) -> None:
    """An image cut short, replaced by noise, or of another size."""
    with h5py.File(path, "r+") as file:
        images = file[f"observation/images/{rng.choice(['table', 'wrist'])}"]
        row = int(rng.integers(len(images)))
        jpeg = images[row]
        noise = rng.integers(0, 256, 50).astype(np.uint8)
        images[row] = [jpeg[: rng.integers(0, len(jpeg))], noise, jpeg[:2]][rng.integers(3)]


def foreign_hdf5(path: Path, rng: np.random.Generator) -> None:
    """HDF5 of somebody else."""
    path.unlink()
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = rng.normal(size=(5, 7))
        if rng.random() < 0.5:
            file.attrs["schema_version"] = 1


def zeros(path: Path, rng: np.random.Generator) -> None:
    """As long as it was, but zeros."""
    path.write_bytes(bytes(path.stat().st_size))


def text(path: Path, rng: np.random.Generator) -> None:
    """A note that somebody named .h5."""
    path.write_text("remember to record the blue cube\n" * int(rng.integers(1, 50)))


def empty(path: Path, rng: np.random.Generator) -> None:
    """No bytes."""
    path.write_bytes(b"")


def folder(path: Path, rng: np.random.Generator) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def dangling_link(path: Path, rng: np.random.Generator) -> None:
    """A link to nowhere, or to itself."""
    path.unlink()
    path.symlink_to(path if rng.random() < 0.5 else path.with_name("nowhere"))


# With how often each is chosen.
KINDS: dict[Callable[[Path, np.random.Generator], None], int] = {
    flip_bits: 6,
    flip_bits_of_the_structure: 6,
    blank: 5,
    truncate: 5,
    append_noise: 3,
    retype_dataset: 5,
    retype_attribute: 4,
    spoil_image: 3,
    foreign_hdf5: 1,
    zeros: 1,
    text: 1,
    empty: 1,
    folder: 1,
    dangling_link: 1,
}


def damaged_copies(source: Path, folder: Path, count: int, seed: int = 0) -> dict[Path, str]:
    """``count`` damaged copies of an episode file in ``folder``; path to the kind of damage."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    made = {}
    for number in range(count):
        path = folder / f"damaged-{number:04d}.h5"
        shutil.copyfile(source, path)
        kind = kinds[number % len(kinds)]
        kind(path, rng)
        made[path] = kind.__name__
    return made
