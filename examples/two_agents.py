"""Two agents in one process: a question, an answer, and the trace of both.

python examples/two_agents.py
"""

import asyncio

from afk.messaging import AgentMessage, Delivery, connect


async def write(delivery: Delivery[AgentMessage]) -> str:
    topic = delivery.message.content["topic"]
    await delivery.send("archive", f"asked about {topic}")  # leaves with the answer, or not at all
    return f"A short text about {topic}."


async def main() -> None:
    async with connect("sqlite:///two_agents.db") as bus:
        editor = await bus.register("editor")
        writer = await bus.register("writer")
        archive = await bus.register("archive")
        serving = asyncio.create_task(writer.serve(write))
        try:
            answer = await editor.request("writer", {"topic": "bees"}, timeout=10)
            print(answer.sender, "says:", answer.content)
            note = await archive.receive(timeout=10)
            print("archive:", note.content if note else "nothing")
            print(await bus.trace(answer.correlation_id or ""))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
