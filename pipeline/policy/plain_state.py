"""What of a policy changes while it is trained and is no tensor: counters, modes, which weights are frozen.

VQ-BeT, for one, counts the steps of its first phase in a plain attribute, and then freezes a part of itself.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_PLAIN = (bool, int, float)


class PlainState:
    """The plain numbers of a policy's modules, as attributes of theirs, and its frozen weights."""

    def __init__(self, policy: nn.Module) -> None:
        """Notes how they are now."""
        self._policy = policy
        self._numbers, self._frozen = _numbers(policy), _frozen(policy)

    def changes(self) -> dict[str, Any]:
        """What is otherwise than when this was made, as JSON; of two equal policies it makes equal ones."""
        numbers = {}
        for name, now in _numbers(self._policy).items():
            before = self._numbers.get(name, {})
            if other := {key: value for key, value in now.items() if before.get(key) != value}:
                numbers[name] = other
        return {"numbers": numbers, "frozen": sorted(_frozen(self._policy) - self._frozen)}

    def restore(self, changes: dict[str, Any]) -> None:
        """Makes them as :meth:`changes` says."""
        modules, parameters = dict(self._policy.named_modules()), dict(self._policy.named_parameters())
        for name, numbers in changes["numbers"].items():
            modules[name].__dict__.update(numbers)
        for name in changes["frozen"]:
            parameters[name].requires_grad_(False)


def _numbers(policy: nn.Module) -> dict[str, dict[str, Any]]:
    """By the module's name, its own mode ``training`` among them."""
    return {
        name: {key: value for key, value in vars(module).items() if type(value) in _PLAIN}
        for name, module in policy.named_modules()
    }


def _frozen(policy: nn.Module) -> set[str]:
    return {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}
