"""What clients may send: the fields of OpenAI's interface, and of vLLM's, that this server can do something about.

Everything else is refused by name. Of fields that are known and not supported, the one value is taken that asks for
nothing, since some clients send it with every request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engine import Sampling


def whole(text: str) -> str:
    """The text. Raises ValueError if it holds half a character: JSON can spell that, and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a character (a lone surrogate)") from None
    return text


Text = Annotated[str, AfterValidator(whole)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
StopString = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(whole)]
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[float, Field(ge=1, le=1)]
Nothing = Annotated[list[Any], Field(max_length=0)]
MOST_ANSWERS, MOST_STOPS, MOST_LOGPROBS = 128, 16, 20
DEFAULT_TEMPERATURE = 1.0
SAMPLING_FIELDS = ("temperature", "top_p", "seed", "min_tokens", "ignore_eos")  # as `Sampling` has them


class Body(BaseModel):
    """Fields of exactly these types, and no others: no "5" for 5, no true for 1, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream tells besides its text."""

    include_usage: bool | None = None  # a last chunk with the numbers of tokens, and no choices
    continuous_usage_stats: bool | None = None  # the numbers so far in every chunk


class Unsupported(Body):
    """What others do and this server does not."""

    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    repetition_penalty: One | None = None
    min_p: Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    response_format: None = None
    guided_json: None = None
    metadata: None = None
    store: Literal[False] | None = None
    use_beam_search: Literal[False] | None = None
    # Completions only, and chats only:
    echo: Literal[False] | None = None
    suffix: None = None
    tools: Nothing | None = None
    tool_choice: Literal["none"] | None = None
    functions: Nothing | None = None
    function_call: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None  # says nothing where there are no tools
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    service_tier: Literal["auto", "default"] | None = None
    web_search_options: None = None


UNSUPPORTED = frozenset(Unsupported.model_fields)


class Wanted(Unsupported):
    """What completions and chats have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    max_tokens: Count | None = None
    min_tokens: Natural | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None  # -1 and 0 are all tokens
    seed: Natural | None = None  # the answers of one request get this seed and those that follow
    stop: StopString | Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    ignore_eos: bool | None = None
    user: str | None = None  # whom the client asks for: it changes no answer anywhere, and is not kept

    @property
    def answers(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    def sampling(self, max_tokens: int, logprobs: int | None, stop: tuple[str, ...] = ()) -> list[Sampling]:
        """What is wanted of each answer to one prompt; `stop` is what ends an answer besides the client's strings."""
        own = [self.stop] if isinstance(self.stop, str) else self.stop or []
        wanted = {name: getattr(self, name) for name in SAMPLING_FIELDS if getattr(self, name) is not None}
        wanted = {"temperature": DEFAULT_TEMPERATURE, **wanted}
        wanted |= {"top_k": max(0, self.top_k or 0), "stop": (*own, *stop), "logprobs": logprobs}
        seed = wanted.pop("seed", None)
        seeds = (None if seed is None else seed + index for index in range(self.answers))
        return [Sampling(max_tokens=max_tokens, seed=each, **wanted) for each in seeds]


class CompletionBody(Wanted):
    """The body of /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Natural], Field(min_length=1)]
        | Annotated[list[Annotated[list[Natural], Field(min_length=1)]], Field(min_length=1)]
    )
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts."""
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else self.prompt


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: Text


class Message(Body):
    """One message of a chat. What the openai client leaves empty in its own answers may come back empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: None = None
    refusal: None = None
    annotations: Nothing | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None

    def plain(self) -> dict[str, str]:
        """As a chat template takes it."""
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(Wanted):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None  # the newer name of max_tokens
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class TokenizeBody(Body):
    """The body of /tokenize."""

    prompt: Text
    model: str | None = None
    add_special_tokens: bool | None = None
