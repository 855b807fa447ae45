"""Slips in the SQLite store."""

from .mutant import Mutant

FILE = "tests/stores/test_sqlite_file.py"

SQLITE = (
    Mutant(
        "sqlite",
        "any token of a message settles it",
        "stores/sqlite/step.py",
        (("row.fence == fence and row.state < DONE", "row.state < DONE"),),
        ("check_a_stale_settle_changes_nothing", "check_a_settled_token_is_worth_nothing"),
    ),
    Mutant(
        "sqlite",
        "tokens are compared with >=",
        "stores/sqlite/step.py",
        (("row.fence == fence and", "row.fence >= fence and"),),
        ("check_a_stale_settle_changes_nothing", "check_a_frozen_holder_is_fenced"),
    ),
    Mutant(
        "sqlite",
        "power loss takes what was accepted: synchronous=NORMAL, called disk",
        "stores/sqlite/store.py",
        (('"disk": "FULL"', '"disk": "NORMAL"'),),
        (f"{FILE}::test_durability_is_the_setting_of_the_file[disk-2]",),
    ),
    Mutant(
        "sqlite",
        "a deferred BEGIN, with no lock of its own",
        "stores/sqlite/writer.py",
        (
            ('"BEGIN IMMEDIATE" if writes else "BEGIN"', '"BEGIN"'),
            (
                "with self.lock.held() if writes else contextlib.nullcontext():",
                "with contextlib.nullcontext():",
            ),
        ),
        (
            f"{FILE}::test_a_lock_held_too_long_is_an_error_that_names_the_holder",
            "check_64_racing_processes_send_one_message",
        ),
    ),
    Mutant(
        "sqlite",
        "a commit that failed is taken for one that did not",
        "stores/sqlite/writer.py",
        (
            (
                "            self._recover(error)\n"
                '            raise _CommitError(f"{error}; the outcome is unknown") from error\n',
                "            self._recover(error)\n",
            ),
        ),
        (
            f"{FILE}::test_a_full_disk_fails_the_send_and_works_again",
            f"{FILE}::test_a_failing_write_is_a_store_error_and_the_file_is_reopened",
        ),
    ),
    Mutant(
        "sqlite",
        "leases are renewed only when the event loop has something to do",
        "stores/sqlite/engine.py",
        (
            (
                "self._queue.get(timeout=self.writer.holdings.wait())",
                "self._queue.get()",
            ),
        ),
        ("check_a_blocked_loop_keeps_its_leases", "check_a_blocked_process_keeps_its_message"),
    ),
    Mutant(
        "sqlite",
        "a claim that was cancelled is not undone",
        "stores/sqlite/store.py",
        (
            (
                "lambda step: claim(step, request), undo=give_back)",
                "lambda step: claim(step, request))",
            ),
        ),
        ("check_a_cancelled_claim_gives_back", "check_a_cancelled_receive_loses_nothing"),
    ),
    Mutant(
        "sqlite",
        "attempts are not counted as they begin",
        "stores/sqlite/claim.py",
        (("expires, attempt, fence, last, end", "expires, attempt - 1, fence, last, end"),),
        ("check_a_lease_is_the_claimers_own", "check_a_handler_that_kills_its_process_ends"),
    ),
    Mutant(
        "sqlite",
        "one sender is read in no order",
        "stores/sqlite/claim.py",
        (("ORDER BY rank, seq LIMIT ?", "ORDER BY rank, random() LIMIT ?"),),
        ("check_one_sender_is_read_in_order",),
    ),
    Mutant(
        "sqlite",
        "the last lease ends, and the message is due again",
        "stores/sqlite/claim.py",
        (("if row.state == LEASED and row.last:", "if row.state == LEASED and False:"),),
        ("check_a_handler_that_kills_its_process_ends", "check_the_claimers_policy_decides"),
    ),
    Mutant(
        "sqlite",
        "a redrive of what is no dead letter begins it anew",
        "stores/sqlite/mend.py",
        (
            (
                "    if row.state != DEAD or shelf is None:\n        return False\n"
                "    step.count(row.mailbox, 1)\n",
                "    if shelf is None:\n        return False\n    step.count(row.mailbox, 1)\n",
            ),
        ),
        ("check_an_id_named_twice_counts_once", "check_redrive_begins_anew"),
    ),
    Mutant(
        "sqlite",
        "a refused turn leaves what came before the refusal",
        "stores/sqlite/put.py",
        (('            step.db.execute("ROLLBACK TO turn")\n', ""),),
        ("check_a_turn_is_all_or_nothing", "check_an_undone_transaction_leaves_no_sends"),
    ),
    Mutant(
        "sqlite",
        "a refused turn commits the handler's writes",
        "stores/sqlite/session.py",
        (("            if verdict.refusal is None:\n", "            if True:\n"),),
        ("check_effects_commit_with_the_turn", "check_a_failed_transaction_undoes_everything"),
    ),
    Mutant(
        "sqlite",
        "a key with another content is the message that is there",
        "stores/sqlite/put.py",
        (("if send.compare and digest not in", "if not send.compare and digest not in"),),
        ("check_a_key_is_accepted_once",),
    ),
    Mutant(
        "sqlite",
        "a second answer takes the place of the first",
        "stores/sqlite/put.py",
        (("if answered is not None or request.state", "if request.state"),),
        ("check_a_second_answer_is_ignored_and_logged",),
    ),
    Mutant(
        "sqlite",
        "an ordered thread is handed to two",
        "stores/sqlite/put.py",
        (("            row.line = BLOCKED\n", "            row.line = READY\n"),),
        ("check_a_thread_is_worked_on_one_at_a_time",),
    ),
    Mutant(
        "sqlite",
        "what ended leaves the thread behind it waiting",
        "stores/sqlite/step.py",
        (("        while row.thread is not None:\n", "        while False:\n"),),
        ("check_however_a_head_ends_its_thread_goes_on",),
    ),
)
