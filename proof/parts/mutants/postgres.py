"""Slips in the functions of the PostgreSQL store."""

from .mutant import Mutant

POSTGRES = (
    Mutant(
        "postgres",
        "a known key is looked for, and nothing keeps two from finding none",
        "stores/postgres/schema/001_tables.sql",
        (("CREATE UNIQUE INDEX by_key", "CREATE INDEX by_key"),),
        ("check_64_racing_processes_send_one_message", "check_64_racing_tasks_send_one_message"),
    ),
    Mutant(
        "postgres",
        "a claim locks nothing",
        "stores/postgres/schema/004_step.sql",
        (
            (
                "ORDER BY rank, seq LIMIT most FOR UPDATE SKIP LOCKED);",
                "ORDER BY rank, seq LIMIT most);",
            ),
        ),
        ("check_competing_consumers_share_a_mailbox", "check_a_delivery_belongs_to_one_consumer"),
    ),
    Mutant(
        "postgres",
        "an ack asks for no token",
        "stores/postgres/schema/004_step.sql",
        ((" AND id || '.' || fence = ANY(tokens) AND state < 3\n", " AND state < 3\n"),),
        ("check_a_stale_settle_changes_nothing", "check_a_frozen_holder_is_fenced"),
    ),
    Mutant(
        "postgres",
        "tokens are compared with >=",
        "stores/postgres/schema/003_turns.sql",
        (("AND fence = t.fence AND state < 3", "AND fence >= t.fence AND state < 3"),),
        ("check_a_stale_settle_changes_nothing", "check_a_second_settle_is_refused"),
    ),
    Mutant(
        "postgres",
        "attempts are not counted as they begin",
        "stores/postgres/schema/004_step.sql",
        (("line = NULL, attempt = attempt + 1,\n", "line = NULL,\n"),),
        ("check_the_claimers_policy_decides", "check_past_the_last_attempt_is_a_dead_letter"),
    ),
    Mutant(
        "postgres",
        "one sender is read in no order",
        "stores/postgres/schema/004_step.sql",
        (("ORDER BY rank, seq LIMIT most", "ORDER BY rank, md5(id) LIMIT most"),),
        ("check_one_sender_is_read_in_order",),
    ),
    Mutant(
        "postgres",
        "what ended makes no room",
        "stores/postgres/schema/002_course.sql",
        (("        PERFORM count_all(here, boxes, -1);\n", ""),),
        ("check_a_full_mailbox_refuses", "check_an_ack_makes_room_for_its_own_turn"),
    ),
    Mutant(
        "postgres",
        "a redrive of what is no dead letter begins it anew",
        "stores/postgres/schema/005_mending.sql",
        (
            (
                "            CONTINUE WHEN row.state <> 4;\n            CONTINUE WHEN NOT redrive",
                "            CONTINUE WHEN NOT redrive",
            ),
        ),
        ("check_an_id_named_twice_counts_once", "check_redrive_and_discard_choose"),
    ),
    Mutant(
        "postgres",
        "a refused turn is not undone",
        "stores/postgres/schema/003_turns.sql",
        (
            (
                "                IF answer.refusal IS NOT NULL THEN\n"
                "                    RAISE EXCEPTION USING ERRCODE = 'AFK00';\n"
                "                END IF;\n",
                "",
            ),
        ),
        ("check_a_turn_is_all_or_nothing",),
    ),
    Mutant(
        "postgres",
        "retries without jitter",
        "stores/postgres/schema/004_step.sql",
        (
            (
                "THEN part(chance, array_position(chosen, seq) - 1) ELSE 1 END END\n",
                "THEN 1 ELSE 1 END END\n",
            ),
        ),
        ("check_retries_spread",),
    ),
    Mutant(
        "postgres",
        "what is in someone's hands can be cancelled",
        "stores/postgres/schema/005_mending.sql",
        (("row.state > 2 OR row.state = 2 AND row.lease > at;", "row.state > 2;"),),
        ("check_cancel_takes_only_the_unclaimed",),
    ),
    Mutant(
        "postgres",
        "an ordered thread is handed to two",
        "stores/postgres/schema/003_turns.sql",
        (
            (
                "state < 3 LIMIT 1;\n        behind := FOUND;\n    END IF;\n    INSERT",
                "state < 2 LIMIT 1;\n        behind := FOUND;\n    END IF;\n    INSERT",
            ),
        ),
        (
            "check_a_thread_is_worked_on_one_at_a_time",
            "check_a_thread_is_in_order_across_consumers",
        ),
    ),
    Mutant(
        "postgres",
        "each process judges leases by its own clock",
        "stores/postgres/presence.py",
        (
            ("import asyncio\n", "import asyncio\nimport time\n"),
            (
                "return None if self._clock is None else self._clock(), self._here",
                "return (self._clock or time.time)(), self._here",
            ),
        ),
        ("check_a_wrong_clock_ends_no_lease",),
    ),
)
