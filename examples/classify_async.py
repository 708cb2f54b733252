"""Many calls at once share one connection, and are batched at the server: `python classify_async.py HOST:PORT`."""

import asyncio
import sys

from lockstep.clients import SentimentClient, raise_for_errors


async def main(address: str) -> None:
    async with SentimentClient(address) as client:
        model = (await client.models())[0].name
        texts = [f"Part {number} was good." for number in range(100)]
        answers = await asyncio.gather(*(client.classify([text], model=model) for text in texts))
        predictions = [raise_for_errors(answer)[0] for answer in answers]
        print(f"{len(predictions)} answers; the largest batch had {max(p.batch_rows for p in predictions)} rows")


asyncio.run(main(sys.argv[1]))
