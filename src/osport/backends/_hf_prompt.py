"""A request as the text and tokens that a Hugging Face model reads, and its answer taken apart again."""

from __future__ import annotations

from attrs import evolve, frozen

from osport.backends._hf_model import HfModel
from osport.backends._thought_text import ThoughtText
from osport.backends._visible_text import VisibleText
from osport.chat_template import Answer, ChatTemplate
from osport.chat_template.answers import split_reasoning
from osport.chat_template.thinking import asked_of_template
from osport.core.capabilities import Capabilities
from osport.core.thought import Thought
from osport.core.types import Completion, Request, Tool
from osport.errors import OutputError, TemplateError, UnsupportedFeature, UsageError

__all__ = ["HfPrompt", "prompt_of", "template_of"]


@frozen
class HfPrompt:
    """``tokens``: ids with control tokens in the caller's own text taken for plain text, or, for a raw prompt and
    where the folder has no ``tokenizer.json``, a text that the tokenizer opens as it opens every prompt."""

    text: str
    tokens: list[int] | str
    template: ChatTemplate | None = None
    tools: tuple[Tool, ...] = ()
    constrained: bool = False
    thought: Thought | None = None

    @property
    def keeps_marks(self) -> bool:
        """Whether special tokens must stay in the answer, because reasoning or calls are told by them."""
        if self.thought is not None:
            return True
        family = self.template.family if self.template is not None else None
        return family is not None and not self.constrained and bool(family.reasoning or family.calls)

    def visible(self) -> VisibleText | ThoughtText:
        """What parts the pieces of the answer while it is written."""
        if self.thought is not None:
            return ThoughtText(self.thought)
        return VisibleText(self.template if self.keeps_marks else None, prompt=self.text, tools=bool(self.tools))

    def finished(self, completion: Completion, *, shown: str = "") -> Completion:
        """The completion with reasoning and calls parted from its text.

        ``shown``: what was streamed already; where it is no part of the content, the text stays as it was written.
        Raises :class:`~osport.errors.OutputError` with the completion for a call that is not well formed.
        """
        try:
            answer = self._taken_apart(completion.text)
        except OutputError as error:
            raise OutputError(str(error), completion) from error
        if not answer.content.startswith(shown):
            return completion
        return evolve(
            completion,
            text=answer.content,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            finish_reason="tool_calls" if answer.tool_calls else completion.finish_reason,
        )

    def _taken_apart(self, text: str) -> Answer:
        if self.thought is not None:
            behind = ThoughtText(self.thought)
            behind.push(text)
            return Answer(behind.shown, behind.reasoning, complete=behind.over)
        if not self.keeps_marks or self.template is None or self.template.family is None:
            return Answer(text)
        if self.tools:
            return self.template.parse(text, prompt=self.text, tools=self.tools)
        reasoning, content, complete = split_reasoning(text, self.template.family, self.text)
        return Answer(content, reasoning, complete=complete)


def template_of(model: HfModel) -> ChatTemplate:
    """The model's template. Raises :class:`~osport.errors.TemplateError` where there is none."""
    if model.template is None:
        raise TemplateError(f"{model.folder} holds no chat template; send a raw prompt, or give Model a ChatTemplate")
    return model.template


def prompt_of(model: HfModel, request: Request, *, backend: str) -> HfPrompt:
    """What the model reads for this request; nothing of a conversation is lost on the way.

    Raises :class:`~osport.errors.TemplateError` for what the template would drop, and
    :class:`~osport.errors.UnsupportedFeature` for what it cannot say.
    """
    if request.prompt is not None:
        beside = "tools" if request.tools else "thinking" if request.thinking is not None else ""
        if beside:
            raise UsageError(f"{backend}: {beside} goes with messages; a raw prompt is sent as it is")
        return HfPrompt(request.prompt, request.prompt, thought=request.thought if request.constraint else None)
    template = template_of(model)
    if request.tool_choice not in ("auto", "none"):
        raise UnsupportedFeature(
            f"tool_choice={request.tool_choice!r}", backend, reason="a template cannot force a call; constrain it"
        )
    tools = request.tools if request.tool_choice == "auto" else ()
    constrained = request.constraint is not None
    asked = evolve(request, thinking=asked_of_template(template.capabilities.thinking, request))
    template.prepare(asked, Capabilities())
    rendered = template.render(
        request.messages,
        tools=tools,
        thinking=asked.thinking,
        continue_final=request.messages[-1].role == "assistant",
    )
    thought = template.thought(rendered.text, request.thinking) if constrained else None
    if rendered.token_ids is not None:
        return HfPrompt(rendered.text, list(rendered.token_ids), template, tools, constrained, thought)
    # Text that would forge a turn is refused here, for there are no ids that could tell it apart.
    as_text = template.prepare(asked, Capabilities(raw_prompt=True)).prompt or ""
    return HfPrompt(rendered.text, as_text, template, tools, constrained, thought)
