"""A backend that repeats the last message in capitals."""

from osport.errors import UsageError
from osport.plugin import Backend, Capabilities, Completion, Request


class Shout(Backend):
    features = frozenset({"chat"})
    closed = False

    def __init__(self, model: str, **options: object) -> None:
        super().__init__(model)
        if options:
            raise UsageError(f"shout takes no options, got {sorted(options)}")

    def capabilities(self) -> Capabilities:
        return Capabilities(sampling=frozenset())

    def generate(self, request: Request) -> Completion:
        if self.closed:
            raise UsageError("shout is closed")
        return Completion(request.messages[-1].content.upper(), "stop")

    def close(self) -> None:
        self.closed = True
