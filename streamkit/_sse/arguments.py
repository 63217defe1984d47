"""Checks of what is said of an event stream, or of a run as one."""

from __future__ import annotations

from collections.abc import Mapping

from .profile import Profile, check_errors


def check_said(profile: Profile, about: object, errors: object) -> None:
    """
    Check what all responses of events are told.

    :raises TypeError: if something is of the wrong type
    :raises ValueError: if the profile has no use for something

    """
    _check_profile(profile)
    _check_about(profile, about)
    if errors is not None:
        check_errors(errors, profile.shutdown)


def _check_profile(given: object) -> None:
    """
    Check that something is a profile.

    :raises TypeError: if it is none

    """
    if not isinstance(given, Profile):
        raise TypeError(
            f"profile must be a Profile, got {type(given).__qualname__}: write "
            "EventStream(source, profile=BROWSER), for instance"
        )


def _check_about(profile: Profile, given: object) -> None:
    """
    Check what the beginning of a stream is made of.

    :raises TypeError: if it is no mapping
    :raises ValueError: if the profile makes nothing of it

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
            f"about is what the beginning of a stream is made of, and {profile.name} has none: "
            "leave it out, or write profile=dataclasses.replace(..., begin=lambda about: ...)"
        )
