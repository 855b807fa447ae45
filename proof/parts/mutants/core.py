"""Slips in what all stores share: mailboxes, workers, deliveries; and in the memory store."""

from .mutant import Mutant

SHARED = (
    Mutant(
        "memory",
        "the ack goes out before the work",
        "worker.py",
        (
            (
                "            with self._timeouts.of(task):\n",
                "            await delivery.ack()\n            with self._timeouts.of(task):\n",
            ),
        ),
        (
            "tests/test_worker.py::test_retry_counts_to_the_end_and_reject_ends_at_once",
            "check_a_handler_past_its_timeout_is_cancelled",
        ),
    ),
    Mutant(
        "memory",
        "a handler that is cancelled gives nothing back",
        "worker.py",
        (
            (
                "        except asyncio.CancelledError:\n"
                "            delivery.give_back_later()\n            raise\n",
                "        except asyncio.CancelledError:\n            raise\n",
            ),
        ),
        ("check_a_cancelled_serve_gives_back", "check_draining_gives_back"),
    ),
    Mutant(
        "memory",
        "who cancels what settles many gives back one",
        "settling.py",
        (("for delivery in list(group):", "for delivery in list(group)[:1]:"),),
        ("tests/test_worker.py::test_what_is_being_settled_when_the_grace_ends_is_given_back",),
    ),
    Mutant(
        "memory",
        "what cannot be settled holds up those it shares a call with",
        "settling.py",
        (("        if len(group) > 1:", "        if not group:"),),
        ("tests/test_worker.py::test_one_that_no_store_takes_holds_up_no_other",),
    ),
    Mutant(
        "memory",
        "more is claimed than can start",
        "worker.py",
        (
            (
                "            limit=limit,\n",
                "            limit=work.concurrency,\n",
            ),
        ),
        ("check_only_what_can_start_is_claimed",),
    ),
    Mutant(
        "memory",
        "a shield around the claim",
        "core.py",
        (
            (
                "return await self.store.claim(claim)",
                "return await asyncio.shield(self.store.claim(claim))",
            ),
        ),
        ("check_a_cancelled_receive_loses_nothing", "check_a_cancelled_claim_gives_back"),
    ),
    Mutant(
        "memory",
        "what was to be settled later is forgotten when the store fails",
        "core.py",
        (("            self._later = later + self._later  # a second", "            # a second"),),
        ("tests/test_worker.py::test_acks_are_tried_again_without_another_call",),
    ),
    Mutant(
        "memory",
        "the sends of a turn leave in a step of their own",
        "delivery.py",
        (
            (
                "        await self._settle(Done(), tuple(self._sends))\n",
                "        await self._settle(Done())\n"
                "        if self._sends:\n"
                "            await self._core.put(Turn(sends=tuple(self._sends)))\n",
            ),
        ),
        ("check_a_turn_is_all_or_nothing", "check_a_refused_ack_fails_the_attempt"),
    ),
    Mutant(
        "memory",
        "a failed attempt sends all the same",
        "delivery.py",
        (
            (
                "await self._settle(self.failure(error, delay))\n",
                "await self._settle(self.failure(error, delay), tuple(self._sends))\n",
            ),
        ),
        ("check_a_failed_attempt_sends_nothing",),
    ),
    Mutant(
        "memory",
        "a repeated turn asks under a new key",
        "delivery.py",
        (
            (
                "key = sub_request_key(self._record.id, self._leased.redrives, self._calls)",
                "key = sub_request_key(self._record.id, self.attempt, self._calls)",
            ),
        ),
        ("check_a_sub_request_is_made_once",),
    ),
    Mutant(
        "sqlite",
        "the copies of a broadcast leave one by one",
        "posting.py",
        (
            (
                "        turn = Turn(sends=sends, roster=roster.version)\n"
                "        verdict = await core.try_put(turn, Sent(record, view))\n",
                "        parts = [\n"
                "            await core.try_put(Turn(sends=(send,), roster=roster.version))\n"
                "            for send in sends\n"
                "        ]\n"
                "        accepted = tuple(one for part in parts for one in part.accepted)\n"
                "        verdict = replace(parts[-1], accepted=accepted)\n",
            ),
        ),
        ("check_a_cancelled_broadcast_is_all_or_nothing",),
    ),
    Mutant(
        "memory",
        "the hops are not counted",
        "sending.py",
        (("hops=max(record.hops, origin.hops + 1),", "hops=record.hops,"),),
        ("check_hops_are_counted", "check_a_loop_ends_in_a_dead_letter"),
    ),
    Mutant(
        "memory",
        "retries without jitter",
        "lifecycle.py",
        (('return most * chance if self.jitter == "full" else most', "return most"),),
        ("check_retries_spread",),
    ),
    Mutant(
        "memory",
        "one attempt too many",
        "lifecycle.py",
        (("if attempt >= policy.max_attempts:", "if attempt > policy.max_attempts:"),),
        ("check_past_the_last_attempt_is_a_dead_letter",),
    ),
    Mutant(
        "memory",
        "a key is forgotten with its message's body",
        "lifecycle.py",
        (("max(body, settled + retention) if keyed else body", "body"),),
        ("check_an_explicit_key_lives_as_long_as_its_message_and_retention",),
    ),
    Mutant(
        "memory",
        "the last tenth of a mailbox is for everyone",
        "lifecycle.py",
        (("return capacity if urgent else capacity - capacity // 10", "return capacity"),),
        ("check_the_last_tenth_is_for_urgent_mail",),
    ),
    Mutant(
        "memory",
        "typed mail is settled before it can be read",
        "mailbox.py",
        (("take = self._type is None  # what", "take = True  # what"),),
        ("check_what_does_not_decode_is_a_dead_letter",),
    ),
    Mutant(
        "memory",
        "two contents have one fingerprint",
        "records.py",
        (
            (
                "text = msgspec.json.encode(parts) + canonical(record.content)",
                "text = msgspec.json.encode(parts)",
            ),
        ),
        ("check_a_key_is_accepted_once", "check_a_digest_stands_in_for_a_body_that_is_gone"),
    ),
)

LEDGER = (
    Mutant(
        "memory",
        "an older token settles too",
        "stores/ledger/ledger.py",
        (("row.past.fence != fence or row.state in FINAL", "row.state in FINAL"),),
        ("check_a_stale_settle_changes_nothing", "check_a_settled_token_is_worth_nothing"),
    ),
    Mutant(
        "memory",
        "attempts are counted as they fail",
        "stores/ledger/ledger.py",
        (
            (
                "        past.attempt += 1\n        past.fence += 1\n        past.leased_at",
                "        past.fence += 1\n        past.leased_at",
            ),
            (
                "            if not outcome.counts:\n                past.attempt -= 1\n",
                "            if outcome.counts:\n                past.attempt += 1\n",
            ),
            (
                "past.last = past.attempt >= claim.policy.max_attempts",
                "past.last = past.attempt + 1 >= claim.policy.max_attempts",
            ),
            ("claim.policy.delay(past.attempt,", "claim.policy.delay(past.attempt + 1,"),
            ("            attempt=past.attempt,\n", "            attempt=past.attempt + 1,\n"),
        ),
        ("check_past_the_last_attempt_is_a_dead_letter",),
    ),
    Mutant(
        "memory",
        "what expired counts as done",
        "stores/ledger/course.py",
        (
            (
                'self._finish(row, "dead", now, "expired")',
                'self._finish(row, "done", now)',
            ),
        ),
        ("check_expired_mail_is_a_dead_letter",),
    ),
    Mutant(
        "memory",
        "a lease that ends for the last time lines up again",
        "stores/ledger/course.py",
        (('if row.state == "leased" and row.past.last:', "if False:"),),
        ("check_past_the_last_attempt_is_a_dead_letter", "check_the_claimers_policy_decides"),
    ),
    Mutant(
        "memory",
        "what comes back goes to the end of the line",
        "stores/ledger/course.py",
        (("            shelf.put_back(row)\n", "            shelf.add(row)\n"),),
        ("check_giving_back_costs_nothing", "check_retried_messages_keep_their_priority"),
    ),
    Mutant(
        "memory",
        "a thread is handed to two",
        "stores/ledger/rows.py",
        (("return len(thread) == 1", "return True"),),
        ("check_a_thread_is_worked_on_one_at_a_time",),
    ),
    Mutant(
        "memory",
        "room is looked for once the message is in",
        "stores/ledger/plan.py",
        (
            (
                "            if len(shelf.open) + added >= most:\n                return Refusal",
                "            if len(shelf.open) + added > most:\n                return Refusal",
            ),
        ),
        ("check_a_full_mailbox_refuses",),
    ),
    Mutant(
        "memory",
        "a late answer is mail",
        "stores/ledger/plan.py",
        (("            late = send.awaited\n", "            late = False\n"),),
        ("check_an_answer_past_retention_is_no_mail",),
    ),
    Mutant(
        "memory",
        "what is in someone's hands can be cancelled",
        "stores/ledger/ledger.py",
        (
            (
                'return row.state in ("pending", "scheduled") or (',
                'return row.state in ("pending", "scheduled", "leased") or (',
            ),
        ),
        ("check_cancel_takes_only_the_unclaimed",),
    ),
)
