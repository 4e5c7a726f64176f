"""A template that keeps everything, a conversation with all that it keeps, and what an audit says of them."""

from osport.chat_template import ChatTemplate, Conversation
from osport.core.types import Message, Tool, ToolCall

GOOD = (
    "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = Tool("weather", "In a city", {"type": "object", "properties": {"city": {"type": "string"}}})
TALK = Conversation(
    [
        Message.system("Be brief."),
        Message.user("Weather?"),
        Message.assistant(
            "I look.",
            tool_calls=[ToolCall("a", "weather", {"city": "Oslo"}), ToolCall("b", "weather", {"city": "Bergen"})],
        ),
        Message.tool("3", tool_call_id="a"),
        Message.tool("4", tool_call_id="b"),
    ],
    tools=[WEATHER],
)


def rules(template, conversation=TALK, severity="errors", **options):
    return {
        (f.rule, f.place) for f in getattr(ChatTemplate.from_text(template).audit(conversation, **options), severity)
    }
