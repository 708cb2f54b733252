"""TLS and a token, which no command line shows: `LOCKSTEP_CA=ca.pem LOCKSTEP_TOKEN=... python secure.py HOST:PORT`."""

import os
import sys

from lockstep.clients import Credentials, SyncSentimentClient

credentials = Credentials(token=os.environ.get("LOCKSTEP_TOKEN"), root_certificates=os.environ.get("LOCKSTEP_CA"))
with SyncSentimentClient(sys.argv[1], credentials=credentials) as client:
    model = client.models()[0].name
    print(client.classify(["A fine film."], model=model)[0])
