"""How each family of generative vision-language models is shown pictures and a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.errors import InputError

# Stands where a prompt is over; no tokenizer gives it.
PADDING_TOKEN = -1


@dataclass(frozen=True)
class Family:
    """The prompt that a family was trained with, and what its language model sees of it.

    opening, before_image, after_image, before_task, closing: text in the prompt's order; the image's
    places stand between ``before_image`` and ``after_image``, once a camera. start_token: where the
    tokenizer's beginning-of-text token goes: "first", before the "task", or "none".
    images_per_prompt: whether pixels go to the image tower as ``(B, cameras, 3, side, side)`` rather
    than ``(B * cameras, 3, side, side)``. prompt_sees_itself: whether every token of the prompt attends
    to all of it, later ones too. first_position: the number of the first position.
    """

    opening: str = ""
    before_image: str = ""
    after_image: str = ""
    before_task: str = ""
    closing: str = ""
    start_token: str = "none"
    images_per_prompt: bool = False
    prompt_sees_itself: bool = False
    first_position: int = 0


# SmolVLM (arXiv 2504.05299) has Idefics3's prompt (arXiv 2408.12637), here with each image in one piece.
_IDEFICS3 = Family(
    opening="<|im_start|>User:",
    before_image="<fake_token_around_image><global-img>",
    after_image="<fake_token_around_image>",
    closing="<end_of_utterance>\nAssistant:",
    images_per_prompt=True,
)

FAMILIES = {
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    # arXiv 2407.07726, section 3.1: images, beginning of text, task, line break; full attention in all.
    "paligemma": Family(closing="\n", start_token="task", prompt_sees_itself=True, first_position=1),
    # arXiv 2310.03744: LLaVA 1.5, Vicuna's turns without the system prompt.
    "llava": Family(opening="USER: ", after_image="\n", closing=" ASSISTANT:", start_token="first"),
}


def family_of(model_type: str, others: str = "") -> Family:
    """The family of Transformers' ``model_type``; ``others``: what else the caller takes, for the message.

    Raises ``InputError`` for others: a prompt or a mask that a model was not trained with gives numbers,
    only no good ones.
    """
    if model_type not in FAMILIES:
        known = f"{others} and " * bool(others) + ", ".join(FAMILIES)
        raise InputError(f"a backbone of type {model_type!r} cannot be read out: there are {known}")
    return FAMILIES[model_type]


class PromptTokens:
    """A family's prompt as the backbone's own tokens, with places for the images.

    ``before_images``: tokens before the first image; ``image_length``: tokens of one, markers included.
    """

    def __init__(self, model: Any, tokenizer: Any, family: Family, places: int) -> None:
        """``model``, ``tokenizer``: of the backbone; ``places``: tokens that an image takes."""
        self.tokenizer = tokenizer
        self.image_token = int(model.config.image_token_id)
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._opening = (start if family.start_token == "first" else []) + self.ids(family.opening)
        markers = self.ids(family.before_image), self.ids(family.after_image)
        self._image = markers[0] + [self.image_token] * places + markers[1]
        self._before_task = start if family.start_token == "task" else []
        self._before_task = self._before_task + self.ids(family.before_task)
        self._closing = self.ids(family.closing)
        self.before_images, self.image_length = len(self._opening), len(self._image)

    def ids(self, text: str) -> list[int]:
        """The tokens of ``text`` alone."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def prompt(self, words: list[int], images: int) -> list[int]:
        """The whole prompt: ``images`` images, then the task, whose tokens ``words`` are."""
        return self._opening + self._image * images + self._before_task + words + self._closing

    def embedded(self, model: Any, tokens: Tensor, images: Tensor) -> Tensor:
        """Prompts (B, length) as the language model takes them, ``(B, length, width)``.

        ``tokens`` are those of :meth:`prompt`, padded by ``PADDING_TOKEN``; ``images`` (any, width): the
        tokens of all images, in the order of their places.
        """
        places = tokens == self.image_token
        # Some families' image token is not in the vocabulary.
        words = model.get_input_embeddings()(tokens.masked_fill(places | (tokens == PADDING_TOKEN), 0))
        return words.masked_scatter(places[:, :, None], images.to(words.dtype))
