"""Messages and enumerations of the arm's ``VisionConfig`` protocol file, made when this is imported."""

from ...stand_in.generated import fill

fill(__name__, "VisionConfig")
