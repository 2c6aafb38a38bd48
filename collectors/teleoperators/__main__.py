"""``python -m collectors.teleoperators``: which devices there are, and the udev rule for SpaceMice."""

from __future__ import annotations

import sys

from collectors.teleoperators.finding import describe_devices, udev_advice


def main() -> None:
    """Prints one line per device, then the udev rule."""
    sys.stdout.write("\n".join([*describe_devices(), "", udev_advice()]) + "\n")


if __name__ == "__main__":
    main()
