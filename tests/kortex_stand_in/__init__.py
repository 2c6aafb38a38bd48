"""A stand-in for Kinova's ``kortex_api`` and the simulated arm it talks to, over the real wire.

This folder on a process's ``PYTHONPATH`` makes ``import kortex_api`` find the stand-in. The simulated arm
(:mod:`tests.kortex_stand_in.simulated_arm`) serves the vendor's client just as well.
"""
