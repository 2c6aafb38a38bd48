"""The parts of ``gen3_vla``: backbones, bridges, action heads and tokens, one choice each.

``choices`` says which there are and where each comes from; ``build`` puts a policy's parts together.
"""
