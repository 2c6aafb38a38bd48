"""What the parts of ``gen3_vla`` hand each other: a prefix, a memory, an action head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Prefix:
    """What a backbone made of observation, task and all that stands before the actions.

    ``hidden`` (B, N, W) last hidden states, ``present`` (B, N) bool, False where there is padding,
    ``layers``: a layer's keys and values, each (B, N, K). A backbone of one vector has N = 1 and no layers.
    Of the hidden states there may be the last few alone, or none, where an expert reads no others.
    """

    hidden: Tensor
    present: Tensor
    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    def detached(self) -> Prefix:
        """The same numbers, through which no gradient flows: the stop-gradient of insulation."""
        layers = tuple((keys.detach(), values.detach()) for keys, values in self.layers)
        return Prefix(self.hidden.detach(), self.present, layers)


@dataclass(frozen=True)
class TokenErrors:
    """Cross-entropies: ``actions`` (B, T), a step's mean; ``subtask`` (B,), 0 where it is not known.

    ``subtask_known`` (B,) bool. ``None``: the backbone predicts none.
    """

    actions: Tensor | None = None
    subtask: Tensor | None = None
    subtask_known: Tensor | None = None


@dataclass(frozen=True)
class Memory:
    """What a bridge lets an expert see: one ``vector`` (B, W), or the whole ``prefix``."""

    vector: Tensor | None = None
    prefix: Prefix | None = None

    def with_vector(self, vector: Tensor) -> Memory:
        """The same with another vector."""
        return replace(self, vector=vector)

    def one_vector(self) -> Tensor:
        """The vector; an assertion fails where the bridge gives a sequence, which configurations refuse."""
        assert self.vector is not None, "this bridge gives a sequence, and one vector is needed"
        return self.vector


@dataclass(frozen=True)
class Reading:
    """A memory under an indicator (B,) in 0..2 (none, negative, positive)."""

    memory: Memory
    indicator: Tensor


class ActionHead(nn.Module, ABC):
    """Turns a memory into a chunk of normalised actions, and says how wrong it was on known ones."""

    @abstractmethod
    def errors(self, reading: Reading, actions: Tensor, counted: Tensor) -> Tensor:
        """The error of each step, (B, T), for ``actions`` (B, T, A); ``counted`` (B, T) bool.

        Errors of steps that do not count are ignored by the caller; they must be finite. Actions of steps
        that do not count must not change the errors of the others, but for ``FlowExpert``, see there.
        """

    @abstractmethod
    def chunk(self, readings: list[Reading], noise: Tensor | None) -> Tensor:
        """Actions (B, T, A), about in [-1, 1].

        A second reading, where there is one, is that without indicator, for guidance. ``noise`` (B, T, A)
        replaces what a flow would draw from torch's generator.
        """


def ones_like_present(hidden: Tensor) -> Tensor:
    """A ``present`` for ``hidden`` (B, N, ...) without padding."""
    return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)


def held(actions: Tensor, counted: Tensor) -> Tensor:
    """``actions`` (B, T, A) in which a step that does not count repeats the last one before it that does.

    ``counted`` is (B, T) bool; where it is all True, the actions are the same to the last bit.
    """
    steps = torch.arange(actions.shape[1], device=actions.device).expand(counted.shape)
    last = torch.where(counted, steps, torch.zeros_like(steps)).cummax(1).values
    return actions.gather(1, last[:, :, None].expand_as(actions))
