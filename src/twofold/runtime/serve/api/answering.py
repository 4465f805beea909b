"""One call from its requests to the pieces of its answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from twofold.runtime.serve.api.calls import Call
from twofold.runtime.serve.api.continuation import Continuation, Scored
from twofold.runtime.serve.api.metrics import Metrics
from twofold.runtime.serve.api.served import Served
from twofold.runtime.serve.client import AnswerFailed, EngineClient, EngineGone
from twofold.runtime.serve.messages import Finish, Request, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one token adds to the answer number `index`; with `echo` the first brings the prompt."""

    index: int
    text: str
    tokens: tuple[Scored, ...]
    finish: Finish | None
    cached_tokens: int


async def answer(
    call: Call, served: Served, client: EngineClient, metrics: Metrics
) -> AsyncGenerator[Part]:
    """Parts of all the call's answers, as they come. Closing it cancels what is left."""
    requests = [_request(call, index, client.new_id()) for index in range(len(call.prompts))]
    index_of = {request.id: index for index, request in enumerate(requests)}
    continuations = [
        Continuation(
            served.tokeniser,
            stop=call.stop,
            stop_ids=call.stop_ids,
            min_new_tokens=call.min_new_tokens,
        )
        for _ in requests
    ]
    watches = [metrics.watch(len(request.prompt)) for request in requests]
    tokens = client.tokens(requests)
    try:
        async for token in tokens:
            index = index_of[token.id]
            watches[index].note_token(token.queued_s)
            continuation = continuations[index]
            piece = continuation.add(token)
            finish = piece.finish
            if call.max_new_tokens[index] == 0:
                finish = "length"
            if finish is not None:
                watches[index].note_end(finish)
                client.cancel(token.id)
            is_first = continuation.num_tokens == 1
            text = piece.text
            scored: tuple[Scored, ...] = (Scored(piece.token, piece.logprobs),)
            if call.max_new_tokens[index] == 0:
                text, scored = "", ()
            if is_first and call.echo:
                echoed, prompt = _echo(call, index, served, token)
                text, scored = echoed + text, (*prompt, *scored)
            yield Part(
                index=index,
                text=text,
                tokens=scored,
                finish=finish,
                cached_tokens=token.cached_tokens if is_first else 0,
            )
    except (AnswerFailed, EngineGone):
        for watch in watches:
            watch.note_failed()
        raise
    finally:
        await tokens.aclose()
        for watch in watches:
            watch.note_end(None)


def _request(call: Call, index: int, id: int) -> Request:
    """Answers of one call differ in their seeds, where one is given."""
    return Request(
        id=id,
        prompt=call.prompts[index],
        max_new_tokens=max(1, call.max_new_tokens[index]),
        min_new_tokens=call.min_new_tokens,
        stop_ids=call.stop_ids,
        temperature=call.temperature,
        top_k=call.top_k,
        top_p=call.top_p,
        seed=None if call.seed is None else call.seed + index,
        num_logprobs=call.num_logprobs,
        scores_prompt=call.echo and call.num_logprobs is not None,
    )


def _echo(call: Call, index: int, served: Served, token: Token) -> tuple[str, tuple[Scored, ...]]:
    """The prompt as text and as scored tokens; its first token has no logprob."""
    prompt = call.prompts[index]
    stream = served.tokeniser.stream()
    text = "".join(stream.add(id) for id in prompt) + stream.finish()
    scores = token.prompt_logprobs or (None,) * (len(prompt) - 1)
    return text, tuple(map(Scored, prompt, (None, *scores)))
