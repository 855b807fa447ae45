"""Slips in the NATS store, and in what several processes make of one log."""

from .mutant import Mutant

LOG = "tests/stores/test_nats_log.py"

NATS = (
    Mutant(
        "nats",
        "what is written to the log twice takes effect twice",
        "stores/nats/replica.py",
        (
            (
                "        if part.number <= writer.number:\n",
                "        if part.number < 0:\n",
            ),
            ("        if part.number < writer.begun:\n", "        if part.number < 0:\n"),
        ),
        (f"{LOG}::test_what_is_sent_again_takes_effect_once",),
    ),
    Mutant(
        "nats",
        "each process judges leases by its own clock",
        "stores/nats/replica.py",
        (
            (
                "from collections.abc import Iterable, Iterator\n",
                "import time\nfrom collections.abc import Iterable, Iterator\n",
            ),
            ("max(self.now, stored_at) if part.now is None else part.now", "time.time()"),
        ),
        ("check_a_wrong_clock_ends_no_lease", "check_a_lease_is_the_claimers_own"),
    ),
    Mutant(
        "nats",
        "what time brings about waits for the next message",
        "stores/nats/store.py",
        (("        if ledger.next_due() <= now:\n", "        if False:\n"),),
        ("check_expired_mail_is_a_dead_letter", "check_a_lease_is_the_claimers_own"),
    ),
    Mutant(
        "nats",
        "held leases are not renewed",
        "stores/keeping.py",
        (("        if claim.hold:\n", "        if claim.hold and claim.limit > 1:\n"),),
        ("check_a_lease_is_renewed_while_the_handler_runs",),
    ),
    Mutant(
        "nats",
        "a late part takes the place of the group after it",
        "stores/nats/replica.py",
        (("        if part.number < writer.begun:\n", "        if part.number < 0:\n"),),
        (f"{LOG}::test_parts_that_come_late_do_not_disturb_the_group_after_them",),
    ),
    Mutant(
        "nats",
        "a discarded message is not known any more",
        "stores/ledger/books.py",
        (
            (
                "        del self.dead[row.id]\n        self._digest(row)\n",
                "        del self.dead[row.id]\n        row.body = None\n",
            ),
        ),
        ("check_a_discarded_message_is_still_known",),
    ),
    Mutant(
        "nats",
        "what a claim took is handed out however late, whose it is by now",
        "stores/nats/store.py",
        (("if batch.leased and asyncio", "if batch.died and asyncio"),),
        (
            "tests/stores/test_nats_trouble.py::"
            "test_a_claim_answered_late_does_not_hand_out_what_another_has_done",
        ),
    ),
)
