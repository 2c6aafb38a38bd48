"""How each family of generative vision-language models is shown pictures and a task."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InputError


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

_FAMILIES = {
    "idefics3": _IDEFICS3,
    "smolvlm": _IDEFICS3,
    # arXiv 2407.07726, section 3.1: images, beginning of text, task, line break; full attention in all.
    "paligemma": Family(closing="\n", start_token="task", prompt_sees_itself=True, first_position=1),
    # arXiv 2310.03744: LLaVA 1.5, Vicuna's turns without the system prompt.
    "llava": Family(opening="USER: ", after_image="\n", closing=" ASSISTANT:", start_token="first"),
}


def family_of(model_type: str) -> Family:
    """The family of Transformers' ``model_type``.

    Raises ``InputError`` for others: a prompt or a mask that a model was not trained with gives numbers,
    only no good ones.
    """
    if model_type not in _FAMILIES:
        raise InputError(
            f"a backbone of type {model_type!r} cannot be read out: there are dual encoders (SigLIP, CLIP) "
            f"and {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[model_type]
