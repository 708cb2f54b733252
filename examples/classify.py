"""Classify texts: `python classify.py HOST:PORT`."""

import sys

from lockstep.clients import SyncSentimentClient, raise_for_errors

with SyncSentimentClient(sys.argv[1]) as client:
    model = client.models()[0].name
    for prediction in raise_for_errors(client.classify(["A fine film.", "Dull and far too long."], model=model)):
        print(f"{prediction.label} {prediction.score:.3f} in {prediction.phases.total_ms:.2f} ms at the server")
