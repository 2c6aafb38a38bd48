"""Messages and enumerations of the arm's ``Session`` protocol file, made when this is imported."""

from ...stand_in.generated import fill

fill(__name__, "Session")
