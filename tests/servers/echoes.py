"""``examples/openai_background.py`` with a model for a test: what it does is in the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import openai_background

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def answer(prompt: str) -> AsyncGenerator[str, None]:
    for word in prompt.split():
        if word == "BREAK":
            raise RuntimeError("secret")
        if word == "WAIT":
            await anyio.sleep_forever()
        yield f"{word} "
        await anyio.sleep(0.02)


openai_background.answer = answer
app = openai_background.app
