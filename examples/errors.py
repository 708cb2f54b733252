"""A row that fails leaves the others their answers; a call that fails raises: `python errors.py HOST:PORT`."""

import sys

from lockstep.clients import NotFound, RowError, SyncSentimentClient

with SyncSentimentClient(sys.argv[1], timeout_s=5.0) as client:  # retries and the waits between them included
    model = client.models()[0].name
    for result in client.classify(["A fine film.", ""], model=model):
        print(f"{result.kind}: {result.message}" if isinstance(result, RowError) else result.label)
    try:
        client.classify(["A fine film."], model="no-such-model")
    except NotFound as error:
        print(f"{error.code.name}: {error}")
