from osport.testing import BackendConformance


class TestEcho(BackendConformance):
    reference = "echo:any"


class TestScriptedEcho(BackendConformance):
    reference = "echo:any"
    options = {"script": lambda request: answer_for(request)}


def answer_for(request):
    constraint = request.constraint
    if constraint is None:
        return "the sea is wide and deep"
    return {"json_schema": '{"label":"pos","sure":true}', "choice": "neg", "regex": "abc", "grammar": "pos"}[
        constraint.kind
    ]
