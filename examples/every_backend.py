"""The same text through every backend of every model: `python every_backend.py HOST:PORT`."""

import sys

from lockstep.clients import SyncSentimentClient, raise_for_errors

with SyncSentimentClient(sys.argv[1]) as client:
    for model in client.models():
        for backend in model.backends:
            (answer,) = raise_for_errors(client.classify(["A fine film."], model=model.name, backend=backend.name))
            print(f"{model.name:20} {backend.name:16} {answer.score:.6f} {answer.phases.execute_ms:7.2f} ms")
