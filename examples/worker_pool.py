"""Two worker processes share one mailbox in one file; one is killed, and nothing is lost.

python examples/worker_pool.py
"""

import asyncio
import os
import sys

from afk.messaging import AgentMessage, Delivery, connect

URL = "sqlite:///worker_pool.db"
TASKS = 20


async def square(delivery: Delivery[AgentMessage]) -> dict[str, int]:
    await asyncio.sleep(0.05)  # stands for real work
    n = delivery.message.content
    return {"n": n, "square": n * n, "attempt": delivery.attempt, "pid": os.getpid()}


async def work() -> None:
    async with connect(URL) as bus:
        mailbox = await bus.register("squares")
        await mailbox.serve(square, concurrency=2, lease=1)  # a dead worker's tasks are back in 1 s


async def main() -> None:
    async with connect(URL) as bus:
        boss = await bus.register("boss")
        await bus.register("squares")
        start = (sys.executable, __file__, "work")
        workers = [await asyncio.create_subprocess_exec(*start) for _ in range(2)]
        asking = [asyncio.create_task(boss.request("squares", n, timeout=30)) for n in range(TASKS)]
        await asking[0]  # they are at work
        workers[0].kill()
        answers = [answer.content for answer in await asyncio.gather(*asking)]
        for worker in workers:
            if worker.returncode is None:
                worker.terminate()
            await worker.wait()

    print("squares:", [answer["square"] for answer in answers])
    print("by", len({answer["pid"] for answer in answers}), "process(es)")
    print("begun again after the kill:", [a["n"] for a in answers if a["attempt"] > 1])


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] == ["work"] else main())
