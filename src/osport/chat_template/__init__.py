"""Render with the model's own chat template and nothing else, and prove that everything came out."""

from osport.chat_template.answers import Answer
from osport.chat_template.capabilities import TemplateCapabilities
from osport.chat_template.claude import request_from_anthropic
from osport.chat_template.claude_answer import to_anthropic
from osport.chat_template.conversation import Conversation, Form, Loss
from osport.chat_template.families import Family
from osport.chat_template.few_shot import few_shot_turns, with_few_shot
from osport.chat_template.plan import Change, Plan
from osport.chat_template.report import Audit, Finding
from osport.chat_template.rules import Deverbalised, deverbalise
from osport.chat_template.spans import Span
from osport.chat_template.template import ChatTemplate, Rendered
from osport.chat_template.thinking import ThinkingSwitch
from osport.chat_template.trim import Trimmed, trim_system

__all__ = [
    "Answer",
    "Audit",
    "Change",
    "ChatTemplate",
    "Conversation",
    "Deverbalised",
    "Family",
    "Finding",
    "Form",
    "Loss",
    "Plan",
    "Rendered",
    "Span",
    "TemplateCapabilities",
    "ThinkingSwitch",
    "Trimmed",
    "deverbalise",
    "few_shot_turns",
    "request_from_anthropic",
    "to_anthropic",
    "trim_system",
    "with_few_shot",
]
