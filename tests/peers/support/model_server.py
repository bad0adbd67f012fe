"""The stock model server (azureml-inference-server-http) with a scoring script, on loopback."""

import os
import sys
from pathlib import Path

from .process import Process, free_port

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"

# What its command line does, but for the address: the command always listens on every interface.
LAUNCH = """
from azureml_inference_server_http import amlserver
amlserver.DEFAULT_HOST = "127.0.0.1"
amlserver.run()
"""


class ModelServer:
    """One instance: one worker, one request at a time, the connection closed after each answer."""

    def __init__(self, name, script, folder, model_folder):
        self.port = free_port()
        arguments = [sys.executable, "-c", LAUNCH, "--entry_script", SCRIPTS / script]
        arguments += ["--model_dir", model_folder, "--port", self.port]
        environment = os.environ | {"PEERS_GATES": str(folder), "AML_APP_ROOT": str(SCRIPTS)}
        self.process = Process(name, arguments, folder, environment)

    def wait_until_ready(self):
        self.process.wait_until_ready(f"http://127.0.0.1:{self.port}/")

    def stop(self):
        self.process.stop()
