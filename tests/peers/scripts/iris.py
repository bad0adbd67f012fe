"""A scoring script as the model server's documentation shows it: a scikit-learn model behind init and run."""

import json
import os

import joblib


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "iris.joblib"))


def run(raw_data):
    rows = json.loads(raw_data)["data"]
    return {"species": model.predict(rows).tolist()}
