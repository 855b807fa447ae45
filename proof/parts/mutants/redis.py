"""Slips in the scripts of the Redis store, and in what renews leases."""

from .mutant import Mutant

REDIS = (
    Mutant(
        "redis",
        "a claim pops for good: nothing brings the message back",
        "stores/redis/lua/common.lua",
        (
            (
                "  call('ZADD', P .. 'due', unpack(ends))\n",
                "",
            ),
        ),
        ("check_a_killed_consumer_gives_its_message_back", "check_a_lease_is_the_claimers_own"),
    ),
    Mutant(
        "redis",
        "tokens are compared with >=",
        "stores/redis/lua/put.lua",
        (("held.fence ~= fence or final(held)", "held.fence < fence or final(held)"),),
        ("check_a_stale_settle_changes_nothing", "check_a_frozen_holder_is_fenced"),
    ),
    Mutant(
        "redis",
        "a claim does not raise the fence",
        "stores/redis/lua/claim.lua",
        (
            (
                "(tonumber(v[4]) or 0) + 1, tonumber(v[5])",
                "math.max(1, tonumber(v[4]) or 0), tonumber(v[5])",
            ),
        ),
        ("check_a_stale_settle_changes_nothing", "check_resume_settles_what_another_claimed"),
    ),
    Mutant(
        "redis",
        "what is due later puts off the look at what is due before",
        "stores/redis/lua/common.lua",
        (("if alarm and alarm <= at then", "if alarm and alarm == at then"),),
        ("check_each_delayed_message_comes_at_its_time",),
    ),
    Mutant(
        "redis",
        "a renewal asks for no token",
        "stores/redis/lua/renew.lua",
        (
            (
                "if not r or r.fence ~= tonumber(ARGV[i + 1]) or not",
                "if not r or not",
            ),
        ),
        ("check_a_thawed_holder_renews_no_lease_of_another",),
    ),
    Mutant(
        "redis",
        "keys of all senders are the same",
        "stores/redis/lua/put.lua",
        (("mailbox .. '|' .. sender .. '|' .. key,", "mailbox .. '|' .. key,"),),
        ("check_a_key_belongs_to_its_sender_and_recipient",),
    ),
    Mutant(
        "redis",
        "a key outlives what it stood for",
        "stores/redis/lua/put.lua",
        (("if not box or over(id, gone) then", "if not box then"),),
        ("check_a_key_that_is_over_swallows_nothing",),
    ),
    Mutant(
        "redis",
        "the fingerprint is not compared",
        "stores/redis/lua/put.lua",
        ((" or (s.compare and digest ~= s.digest) then", " then"),),
        ("check_a_key_is_accepted_once",),
    ),
    Mutant(
        "redis",
        "room is looked for once the message is in",
        "stores/redis/lua/put.lua",
        (
            (
                "    if call('ZCARD', open) + added >= room then\n      return",
                "    if call('ZCARD', open) + added > room then\n      return",
            ),
        ),
        ("check_a_full_mailbox_refuses",),
    ),
    Mutant(
        "redis",
        "what expired counts as done",
        "stores/redis/lua/common.lua",
        (
            (
                "if r then finish(r, 'dead', 'expired') else",
                "if r then finish(r, 'done') else",
            ),
        ),
        ("check_expired_mail_is_a_dead_letter",),
    ),
    Mutant(
        "redis",
        "a redrive begins the fence anew",
        "stores/redis/lua/amend.lua",
        (("'fence', r.fence + 1,", "'fence', 0,"),),
        ("check_redrive_begins_anew",),
    ),
    Mutant(
        "redis",
        "what is redriven stays among the dead",
        "stores/redis/lua/amend.lua",
        (("  alive(r)\n  r.place", "  r.place"),),
        ("check_a_redriven_letter_outlives_its_retention",),
    ),
    Mutant(
        "redis",
        "what comes back goes before all that is fresh",
        "stores/redis/lua/claim.lua",
        (
            (
                "if id and not (ids[1] and place(ids[1]) < tonumber(before)) then",
                "if id then",
            ),
        ),
        ("check_a_redriven_message_is_behind_all_that_wait", "check_one_sender_is_read_in_order"),
    ),
    Mutant(
        "redis",
        "what a cancelled claim took is given back after what was asked since",
        "stores/redis/link.py",
        ((" and not self._undoing:", ":"),),
        (
            "tests/stores/test_redis_trouble.py::"
            "test_what_a_cancelled_claim_took_is_back_before_the_next_call",
        ),
    ),
    Mutant(
        "redis",
        "who waits relies on its hint alone",
        "listening.py",
        (("        remaining = self._poll\n", "        remaining = 86_400.0\n"),),
        ("tests/stores/test_redis_trouble.py::test_lost_wake_up_lists_cost_time_alone",),
    ),
    Mutant(
        "redis",
        "leases are renewed once, and not again",
        "stores/holding.py",
        (
            (
                "                hold.at = now + hold.lease / 3\n",
                "                hold.at = hold.until\n",
            ),
        ),
        (
            "check_a_lease_is_renewed_while_the_handler_runs",
            "check_a_blocked_loop_keeps_its_leases",
        ),
    ),
    Mutant(
        "redis",
        "each process judges leases by its own clock",
        "stores/redis/presence.py",
        (
            ("import asyncio\nimport secrets\n", "import asyncio\nimport secrets\nimport time\n"),
            (
                'now = "" if self._clock is None else round(self._clock() * 1000)',
                "now = round((self._clock or time.time)() * 1000)",
            ),
        ),
        ("check_a_wrong_clock_ends_no_lease",),
    ),
)
