"""Every hook that osport calls, in one package."""

from osport.plugin import Backend, BackendSpec, Completion, ModelFacts, ScorerSpec, hookimpl


class Whisper(Backend):
    def generate(self, request):
        return Completion(request.messages[-1].content.lower(), "stop")


@hookimpl
def osport_backends():
    return [
        BackendSpec("whisper", Whisper, package="osport-hooks"),
        BackendSpec("echo", Whisper, package="osport-hooks"),
    ]


@hookimpl
def osport_model_facts(ref, known):
    return ModelFacts.of("osport-hooks", architecture="guessed", license="mit") if ref.backend == "whisper" else None


@hookimpl
def osport_scorers():
    return [ScorerSpec("always", lambda expected, answer: 1.0)]


@hookimpl
def osport_call_finished(record):
    print("finished", record.ref, record.completion.text)
