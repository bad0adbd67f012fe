"""A scoring script that misbehaves as it is told. It waits for gates: files that the test makes to let it go on."""

import json
import os
import time

from azureml_inference_server_http.api.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
from flask import Response

GATE_SECONDS_MAX = 20


def init():
    pass


def pass_gate(name):
    deadline = time.monotonic() + GATE_SECONDS_MAX
    while not os.path.exists(os.path.join(os.environ["PEERS_GATES"], name)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened gate {name}")
        time.sleep(0.01)


def events(gate):
    yield "data: first\n\n"
    pass_gate(gate)
    yield "data: second\n\n"


@rawhttp
def run(request: AMLRequest):
    order = json.loads(request.get_data() or b"{}")
    if "raise" in order:
        raise ValueError(order["raise"])
    if "gate" in order:
        pass_gate(order["gate"])
    if "stream" in order:
        return Response(events(order["stream"]), mimetype="text/event-stream")
    seen = {name.lower(): value for name, value in request.headers.items()}
    return AMLResponse({"seen": seen, "length": len(request.get_data())}, 200, json_str=True)
