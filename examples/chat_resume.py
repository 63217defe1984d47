"""
A chat whose answer goes on when its client leaves: whoever comes back gets the rest, and the end.

Needs ``fastapi``, ``openai``, ``sqlalchemy[asyncio]``, ``aiosqlite``, ``uvicorn`` and
``anyio-streamkit[starlette]``. Start it with
``OPENAI_API_KEY=... uvicorn --app-dir examples chat_resume:app``. Then, with a token of a user::

    alice="authorization: Bearer alice"
    curl --include --no-buffer --header "$alice" --json '{"question": "..."}' localhost:8000/chat
    curl --no-buffer --header "$alice" localhost:8000/chat/...      # its location; all of it again
    curl --header "$alice" --header "last-event-id: ..." ...        # what comes after that event
    curl --header "$alice" --request POST localhost:8000/chat/.../cancel
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import move_on_after
from fastapi import Body, Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from streamkit.runs import RunNotFound, Runs
from streamkit.starlette import RunEvents

MODEL = os.environ.get("MODEL", "gpt-5-mini")
engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///chat.db"))
new_session = async_sessionmaker(engine, expire_on_commit=False)
model, runs = AsyncOpenAI(), Runs()


class Base(MappedAsDataclass, DeclarativeBase):
    pass


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    owner: Mapped[str]
    question: Mapped[str]
    answer: Mapped[str] = mapped_column(default="")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with model, runs:
        yield
    await engine.dispose()


async def session() -> AsyncGenerator[AsyncSession, None]:
    async with new_session() as opened:
        yield opened


async def user(authorization: Annotated[str, Header()]) -> str:
    """Yours: look up whose token it is."""
    return authorization.removeprefix("Bearer ")


Session = Annotated[AsyncSession, Depends(session)]
User = Annotated[str, Depends(user)]
app = FastAPI(lifespan=lifespan)


async def answer(message_id: int) -> AsyncGenerator[str, None]:
    # What a request has opened is closed when its client leaves. This outlives it, and opens its
    # own session.
    async with new_session() as db:
        message = await db.get_one(Message, message_id)
        await db.commit()  # while the model speaks, the connection is for others
        try:
            async with await model.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": message.question}], stream=True
            ) as chunks:
                async for chunk in chunks:
                    for choice in chunk.choices:
                        if text := choice.delta.content:
                            message.answer += text
                            yield text
        finally:
            with move_on_after(5, shield=True):  # also from a Stop that comes just now
                await db.commit()  # what there is, before anybody is told of the end


@app.post("/chat")
async def chat(question: Annotated[str, Body(embed=True)], owner: User, db: Session) -> RunEvents:
    db.add(message := Message(owner, question))
    await db.commit()
    run = await runs.start(answer(message.id), owner=owner)
    return RunEvents(runs, run.id, owner=owner, location="/chat/{run_id}")


@app.get("/chat/{run_id}")
async def come_back(run_id: str, owner: User) -> RunEvents:
    return RunEvents(runs, run_id, owner=owner)


@app.post("/chat/{run_id}/cancel")
async def stop(run_id: str, owner: User) -> dict[str, bool]:
    """Stop a run, and return when what there is of its answer is saved."""
    try:
        stopped = await runs.cancel_and_wait(run_id, "by the user", owner=owner, timeout=10)
    except RunNotFound:
        raise HTTPException(404) from None
    return {"stopped": stopped}
