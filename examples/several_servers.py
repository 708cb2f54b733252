"""Calls go to the server with the fewest in flight: `python several_servers.py HOST:PORT HOST:PORT ...`."""

import asyncio
import sys

from lockstep.clients import SentimentClient


async def main(addresses: list[str]) -> None:
    async with SentimentClient(addresses) as client:
        model = (await client.models())[0].name
        await asyncio.gather(*(client.classify(["A fine film."], model=model) for _ in range(100)))
        print(f"100 answers from {len(addresses)} servers")


asyncio.run(main(sys.argv[1:]))
