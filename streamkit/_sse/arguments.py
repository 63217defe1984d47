"""Checks of the arguments for an event stream, or for a run as one."""

from __future__ import annotations

from collections.abc import Mapping

from .profile import Profile, check_errors


def check_said(profile: Profile, about: object, errors: object) -> None:
    """
    Check the arguments that all responses of events have.

    :raises TypeError: if something is of the wrong type
    :raises ValueError: if the profile has no use for one of them

    """
    _check_profile(profile)
    _check_about(profile, about)
    if errors is not None:
        check_errors(errors, profile.shutdown)


def _check_profile(given: object) -> None:
    """
    Check that something is a profile.

    :raises TypeError: if it is not

    """
    if not isinstance(given, Profile):
        raise TypeError(
            f"profile must be a Profile, got {type(given).__qualname__}: write "
            "EventStream(source, profile=BROWSER), for instance"
        )


def _check_about(profile: Profile, given: object) -> None:
    """
    Check the data for the beginning of a stream.

    :raises TypeError: if it is not a mapping
    :raises ValueError: if the profile does not use it

    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(
            f"about must be a mapping, got {type(given).__qualname__}: write "
            "about={'threadId': ...}, for instance"
        )
    if profile.begin is None:
        raise ValueError(
            f"about is the data for the beginning of a stream, and {profile.name} has none: "
            "leave it out, or write profile=dataclasses.replace(..., begin=lambda about: ...)"
        )
