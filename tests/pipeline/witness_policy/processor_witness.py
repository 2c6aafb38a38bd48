"""The witness's processors are ACT's."""

from lerobot.policies.act.processor_act import (
    make_act_pre_post_processors as make_witness_pre_post_processors,
)

__all__ = ["make_witness_pre_post_processors"]
