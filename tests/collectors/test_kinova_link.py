"""The wire between robot object and driver."""

from __future__ import annotations

from collectors.kinova_limits import MotionLimits
from collectors.kinova_link import DriverSettings, Link, Mode, newest_command, socket_pair, wait_for


def test_the_link() -> None:
    """Whole messages, the newest command, no waiting on a full buffer, and an end that is noticed."""
    one, other = (Link(end) for end in socket_pair())
    assert not wait_for((one, other), 0.0)
    assert one.send("status", value=1)
    assert one.send_command([0.0] * 7)
    assert one.send_command([1.0] * 7)
    assert other.wait(1.0)
    messages = other.receive()
    assert [m["kind"] for m in messages] == ["status", "command", "command"]
    newest = newest_command(messages)
    assert newest is not None
    assert newest["action"] == [1.0] * 7
    assert newest_command([]) is None
    while one.send("status", filling="x" * 1000):
        pass
    assert len(other.receive()) > 1
    one.close()
    assert other.wait(1.0)
    assert other.receive() == []
    assert other.ended
    assert not other.send("status")
    other.close()
    assert other.wait(0.0)
    assert other.receive() == []


def test_settings_over_the_link_hide_the_password() -> None:
    """The same after a trip through JSON; its text does not show the password."""
    settings = DriverSettings(
        "10.0.0.9", 1, 2, "ana", "hunter2", MotionLimits(linear_speed=0.1), mode=Mode.LOOK
    )
    one, other = (Link(end) for end in socket_pair())
    one.send("settings", **settings.to_dict())
    (message,) = other.receive()
    message.pop("kind")
    assert DriverSettings.from_dict(message) == settings
    assert "hunter2" not in repr(settings)
    one.close()
    other.close()
