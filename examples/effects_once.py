"""An effect that happens once: the handler's row, its mail and the ack commit together.

Each deposit fails once after it has written. What it wrote is undone with the attempt.

python examples/effects_once.py
"""

import asyncio
import sqlite3
from contextlib import closing

from afk.messaging import AgentMessage, Delivery, RetryPolicy, connect

FILE = "effects_once.db"


async def deposit(delivery: Delivery[AgentMessage]) -> None:
    amount = delivery.message.content
    async with delivery.transaction() as conn:
        conn.execute("INSERT INTO ledger (id, amount) VALUES (?, ?)", (delivery.message.id, amount))
        await delivery.send("auditor", f"deposited {amount}")
        if delivery.attempt == 1:
            raise RuntimeError("the power fails, so to speak")


async def main() -> None:
    with closing(sqlite3.connect(FILE)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS ledger (id TEXT, amount INTEGER)")

    async with connect(f"sqlite:///{FILE}", retry=RetryPolicy(base=0.05)) as bus:
        till = await bus.register("till")
        bank = await bus.register("bank")
        auditor = await bus.register("auditor")
        serving = asyncio.create_task(bank.serve(deposit, concurrency=4))
        for amount in (10, 20, 30):
            # The key makes the whole script repeatable: run it twice, the ledger stays.
            receipt = await till.send("bank", amount, idempotency_key=f"deposit-{amount}")
            print(amount, "is", await receipt.settled(timeout=30))
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        print("mail for the auditor:", await auditor.message_count())

    with closing(sqlite3.connect(FILE)) as db:
        rows, total = db.execute("SELECT count(*), sum(amount) FROM ledger").fetchone()
        print("ledger:", rows, "rows,", total, "in all")


if __name__ == "__main__":
    asyncio.run(main())
