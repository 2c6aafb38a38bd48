"""What a step is, and the key that its name, code, parameters, inputs and seed give it.

Keys are known before anything runs: an input that is itself a step counts with that step's key, not
with the bytes it will produce. So a driver can tell at once which steps of a whole graph are done.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

KEY_LENGTH = 32
_NAME = re.compile(r"[a-z][a-z0-9_]*")
# What the runner itself passes to a step's function.
_RESERVED = {"out", "seed", "progress"}


class Keyed(Protocol):
    """A step, finished or not: what an input that is a step needs to have."""

    @property
    def name(self) -> str:
        """The step's name."""

    @property
    def key(self) -> str:
        """The step's key."""


@dataclass(frozen=True)
class StepAddress:
    """A step's name and key alone, as manifests name inputs: ``name/key``."""

    name: str
    key: str

    @classmethod
    def parse(cls, text: str) -> StepAddress:
        """The address that ``name/key`` says."""
        name, _, key = text.partition("/")
        return cls(name, key)

    def __str__(self) -> str:
        """As it is parsed."""
        return f"{self.name}/{self.key}"


@dataclass(frozen=True)
class ExternalInput:
    """A file or folder that no step made. Only ``digest`` counts for the key; ``path`` may move."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path) -> ExternalInput:
        """The file or folder with the SHA-256 of its content (names and bytes of every file in it)."""
        return cls(path, content_digest(path))


Input = Keyed | ExternalInput


@dataclass(frozen=True)
class Step:
    """One piece of work whose result is kept under :attr:`key`.

    ``function(out, *, progress, seed, **parameters, **inputs)`` writes into the folder ``out`` and may
    return a small dict of plain JSON; it is imported by name in another process, so it must be at the
    top level of a module. It gets ``seed`` where the step has one and ``progress`` where it asks for
    it; each input arrives as the ``Path`` of the finished step's folder (or external file), a sequence
    of inputs as a list of them. ``parameters`` are plain JSON (tuples arrive as lists). ``code`` names
    the modules and packages whose source decides the result, besides the function's own module.

    What follows does not count for the key. ``num_cpus`` cores (0 for a step that only waits for others,
    such as actors of its own), ``num_gpus`` and ``memory_bytes`` are reserved while the step runs, and it
    gets as many threads as cores, at least one. A step that runs longer than ``timeout_s`` seconds, repeated
    attempts included, is ended and counts as failed. ``title`` is for the progress display.

    Raises ``ValueError`` or ``TypeError`` where name, function, parameters or inputs do not fit.
    """

    name: str
    function: Callable[..., Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Input | Sequence[Input]] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    seed: int | None = None
    num_cpus: int = 1
    title: str = ""
    num_gpus: float = 0.0
    memory_bytes: int = 0
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Checks everything that would otherwise only fail in the worker, and freezes the parameters."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"step name {self.name!r}: only a-z, 0-9 and _")
        if self.num_cpus < 0 or self.num_gpus < 0 or self.memory_bytes < 0:
            raise ValueError(f"step {self.name}: it cannot reserve less than nothing")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ValueError(f"step {self.name}: timeout_s is {self.timeout_s}, but must be over 0")
        try:
            plain = json.loads(canonical_json(self.parameters))
        except (TypeError, ValueError) as error:
            raise TypeError(f"step {self.name}: parameters are not plain JSON: {error}") from None
        object.__setattr__(self, "parameters", plain)
        function_name(self.function)
        taken = (_RESERVED | set(plain)) & set(self.inputs) | _RESERVED & set(plain)
        if taken:
            raise ValueError(f"step {self.name}: argument given twice: {', '.join(sorted(taken))}")
        try:
            inspect.signature(self.function).bind(Path(), **self.arguments(dict.fromkeys(self.inputs), None))
        except TypeError as error:
            raise TypeError(f"step {self.name}: {function_name(self.function)}(): {error}") from None

    @cached_property
    def code_version(self) -> str:
        """SHA-256 of the source of the function's module and of :attr:`code`."""
        return code_version((self.function.__module__, *self.code))

    def code_parts(self) -> dict[str, str]:
        """The same for each part of the code on its own, by name: which of them changed since."""
        return {name: code_version((name,)) for name in (self.function.__module__, *self.code)}

    @cached_property
    def key(self) -> str:
        """The first 32 hexadecimal digits of the SHA-256 of the whole recipe."""
        recipe = {
            "name": self.name,
            "function": function_name(self.function),
            "code": self.code_version,
            "parameters": self.parameters,
            "inputs": self.input_identities(),
            "seed": self.seed,
        }
        return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()[:KEY_LENGTH]

    def input_identities(self) -> dict[str, Any]:
        """Each input as ``step-name/key`` or ``external:digest``; what the key and the manifest hold."""
        return self.map_inputs(_identity)

    def map_inputs(self, function: Callable[[Input], Any]) -> dict[str, Any]:
        """``function`` of each input; a list of them where the input is a sequence."""
        return {
            name: [function(item) for item in value] if isinstance(value, Sequence) else function(value)
            for name, value in self.inputs.items()
        }

    def arguments(self, inputs: Mapping[str, Any], progress: object) -> dict[str, Any]:
        """The keyword arguments of :attr:`function`, with ``inputs`` in place of the steps' own."""
        return call_arguments(self.function, self.parameters, inputs, self.seed, progress)

    def upstream(self) -> Iterator[Step]:
        """The inputs that are steps which may still have to run."""
        for value in self.inputs.values():
            for item in value if isinstance(value, Sequence) else [value]:
                if isinstance(item, Step):
                    yield item


def call_arguments(
    function: Callable[..., Any],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Any],
    seed: int | None,
    progress: object,
) -> dict[str, Any]:
    """All keyword arguments of a step's function: ``seed`` only where set, ``progress`` where taken."""
    arguments = {**parameters, **inputs}
    if seed is not None:
        arguments["seed"] = seed
    if "progress" in inspect.signature(function).parameters:
        arguments["progress"] = progress
    return arguments


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces. Raises for what is not plain JSON (NaN too)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def function_name(function: Callable[..., Any]) -> str:
    """``module:function``; raises ``ValueError`` where another process could not import it."""
    module, name = function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise ValueError(f"{module}.{name} cannot be a step: put it at the top level of an importable module")
    return f"{module}:{name}"


@cache
def code_version(names: tuple[str, ...]) -> str:
    """SHA-256 over the source files of modules and packages (their subpackages too), by dotted name.

    Nothing is imported. Raises ``ValueError`` naming the first that has no source.
    """
    digest = hashlib.sha256()
    for module, path in sorted({pair for name in names for pair in _sources(name)}):
        digest.update(f"{module}\0{_file_digest(path)}\n".encode())
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents. Raises ``FileNotFoundError``."""
    if path.is_file():
        return _file_digest(path)
    if not path.is_dir():
        raise FileNotFoundError(path)
    lines = [f"{file.relative_to(path)}\0{_file_digest(file)}\n" for file in files_below(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file below ``folder``, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sources(name: str) -> Iterator[tuple[str, Path]]:
    root, *rest = name.split(".")
    # Asking for a dotted name would import its parents; the top-level name imports nothing.
    spec = importlib.util.find_spec(root)
    if spec is not None and spec.submodule_search_locations:
        for location in spec.submodule_search_locations:
            target = Path(location, *rest)
            if (target / "__init__.py").is_file():
                for file in sorted(target.rglob("*.py")):
                    yield f"{name}/{file.relative_to(target).as_posix()}", file
                return
            if target.with_suffix(".py").is_file():
                yield name, target.with_suffix(".py")
                return
    elif spec is not None and spec.origin is not None and not rest:
        yield name, Path(spec.origin)
        return
    raise ValueError(f"code {name!r}: no such module or package")


def _identity(value: Input) -> str:
    if isinstance(value, ExternalInput):
        return f"external:{value.digest}"
    return f"{value.name}/{value.key}"
