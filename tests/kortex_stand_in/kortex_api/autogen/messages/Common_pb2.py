"""Messages and enumerations of the arm's ``Common`` protocol file, made when this is imported."""

from ...stand_in.generated import fill

fill(__name__, "Common")
