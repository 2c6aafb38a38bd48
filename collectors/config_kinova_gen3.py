"""Settings of the robot type ``kinova_gen3``; LeRobot finds the robot by this module's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lerobot.cameras.configs import CameraConfig
from lerobot.robots import RobotConfig

from collectors.kinova_limits import MotionLimits
from collectors.kinova_link import DriverSettings, Mode
from pipeline.episode import STATE_NAMES
from pipeline.errors import InputError


@RobotConfig.register_subclass("kinova_gen3")
@dataclass(kw_only=True)
class KinovaGen3Config(RobotConfig):
    """Settings of the arm; wrong ones raise ``InputError`` when it is built."""

    ip: str = "192.168.1.10"
    """The arm's address; this is the factory's."""
    tcp_port: int = 10000
    """Port for commands."""
    udp_port: int = 10001
    """Port for feedback."""
    username: str = "admin"
    """User of the arm; the factory's."""
    password: str = field(default="admin", repr=False)
    """Password of the arm; the factory's."""
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    """The cameras by name, as LeRobot configures them."""
    limits: MotionLimits = field(default_factory=MotionLimits)
    """Speed, workspace box, joint margin."""
    zero_after_s: float = 0.2
    """Age of the latest command, or of the arm's feedback, at which the twist becomes zero, s."""
    stop_after_s: float = 1.0
    """Age at which the arm is told to stop, s."""
    driver_log: str | None = None
    """A file for what the driver process prints, for looking into trouble; none by default."""

    def __post_init__(self) -> None:
        """Checks the settings and contradictions between them."""
        if not isinstance(self.ip, str) or not self.ip.strip():
            raise InputError(f"kinova_gen3: ip is {self.ip!r}; give the arm's address")
        for name in ("tcp_port", "udp_port"):
            port = getattr(self, name)
            if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
                raise InputError(f"kinova_gen3: {name} is {port!r}; a port is 1 to 65535")
        if isinstance(self.limits, Mapping):
            self.limits = MotionLimits.from_dict(self.limits)
        if not 0.05 <= self.zero_after_s < self.stop_after_s <= 5.0:
            raise InputError(
                f"kinova_gen3: zero_after_s {self.zero_after_s} and stop_after_s {self.stop_after_s} must "
                "lie in 0.05 to 5 s, the first below the second"
            )
        taken = sorted(set(self.cameras) & set(STATE_NAMES))
        if taken:
            raise InputError(f"kinova_gen3: a camera cannot be called {taken[0]!r}: a state has that name")
        try:
            super().__post_init__()
        except ValueError as error:
            raise InputError(f"kinova_gen3: a camera: {error}") from error

    def driver_settings(self, mode: Mode) -> DriverSettings:
        """What a driver process is told."""
        return DriverSettings(
            address=self.ip,
            tcp_port=self.tcp_port,
            udp_port=self.udp_port,
            username=self.username,
            password=self.password,
            limits=self.limits,
            zero_after_s=self.zero_after_s,
            stop_after_s=self.stop_after_s,
            mode=mode,
        )
