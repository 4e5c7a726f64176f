"""Render with the model's own chat template, and nothing else."""

from osport.chat_template.claude import request_from_anthropic
from osport.chat_template.few_shot import few_shot_turns
from osport.chat_template.template import ChatTemplate, Rendered

__all__ = ["ChatTemplate", "Rendered", "few_shot_turns", "request_from_anthropic"]
