"""The door of what uses Redis: what is told at once, and what is told of it at any time."""

from __future__ import annotations

import coredis
import pytest

from streamkit.redis import Redis, RedisCancelRegistry

URL = "redis://localhost"


class TestMistakes:
    @pytest.mark.parametrize("make", [Redis, RedisCancelRegistry])
    def test_url(self, make: type[Redis]) -> None:
        """Misuse: an address of something else is an error that says so, without the password."""
        with pytest.raises(ValueError, match=r"begin with one of redis://.*got 'http'") as caught:
            make("http://user:secret@localhost")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("url", ["redis://user:secret", "redis://localhost?db=secret"])
    def test_url_that_cannot_be_read(self, url: str) -> None:
        """Misuse: an address with a mistake is an error when it is given, without the password."""
        with pytest.raises(ValueError, match="cannot be read") as caught:
            RedisCancelRegistry(url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("make", [Redis, RedisCancelRegistry])
    def test_no_url(self, make: type[Redis]) -> None:
        """Misuse: no address, or a client in its place: an error that says what to write."""
        with pytest.raises(TypeError, match=r"got NoneType: write 'redis://localhost"):
            make(None)
        with pytest.raises(TypeError, match=r"got Redis.*write Redis\(connect=lambda"):
            make(coredis.Redis())  # type: ignore[arg-type]

    @pytest.mark.parametrize("make", [Redis, RedisCancelRegistry])
    def test_option(self, make: type[Redis]) -> None:
        """Misuse: an option that coredis does not know is an error when it is given."""
        with pytest.raises(TypeError, match=r"'unknown'.*coredis.Redis.from_url"):
            make(URL, unknown=1)
        with pytest.raises(TypeError, match="write RedisCancelRegistry\\(Redis"):
            RedisCancelRegistry(Redis(URL), connect_timeout=1)

    @pytest.mark.parametrize("option", ["decode_responses", "noreply"])
    def test_option_that_does_not_do(self, option: str) -> None:
        """Misuse: clients that decode, or get no answers, are of no use."""
        with pytest.raises(TypeError, match=f"{option}=True"):
            Redis(URL, **{option: True})

    def test_connect(self) -> None:
        """Misuse: a client in place of a function that makes one, or both of address and client."""
        with pytest.raises(TypeError, match="got Redis: write Redis\\(connect=lambda"):
            Redis(connect=coredis.Redis())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="plain function"):
            Redis(connect=_make)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="without an address"):
            Redis(URL, connect=coredis.Redis)
        with pytest.raises(TypeError, match="without options"):
            Redis(connect=coredis.Redis, db=1)

    @pytest.mark.parametrize("prefix", ["", "}", "a\n"])
    def test_prefix(self, prefix: str) -> None:
        """Misuse: a prefix with which names would not work is an error when it is given."""
        with pytest.raises(ValueError, match="write prefix='chat'"):
            RedisCancelRegistry(URL, prefix=prefix)
        with pytest.raises(TypeError, match="write prefix='chat'"):
            RedisCancelRegistry(URL, prefix=None)  # type: ignore[arg-type]


async def _make() -> coredis.Redis[bytes]:
    raise AssertionError("must not be called")
