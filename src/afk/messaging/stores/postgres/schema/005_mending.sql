-- Changing what is there: mailboxes come and go, messages are cancelled, redriven, discarded, let go.

-- The number of a namespace, made on first use; and its mark, by which it is told from another
-- database's.
CREATE FUNCTION open_space(called text) RETURNS TABLE (here int, mark uuid)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    LOOP
        RETURN QUERY SELECT s.space, s.mark FROM space s WHERE s.name = called;
        IF FOUND THEN RETURN; END IF;
        INSERT INTO space (name) VALUES (called) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Whether that is in this database, and how the transaction that asks is isolated from others.
CREATE FUNCTION is_here(at float8, here int, sign uuid, OUT known boolean, OUT isolation text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (SELECT FROM space WHERE space = here AND mark = sign),
        current_setting('transaction_isolation')
$$;

-- Create the mailbox, or answer as it was created. What is still leased since it was last
-- registered comes back to it.
CREATE FUNCTION bind(at float8, here int, called text, in_order boolean, room bigint, size bigint)
RETURNS SETOF mailbox LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT * FROM mailbox WHERE space = here AND name = called;
    IF FOUND THEN RETURN; END IF;
    UPDATE space SET roster = roster + 1 WHERE space = here;  -- one at a time: nobody else binds
    INSERT INTO mailbox VALUES (here, called, in_order, room, size) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        WITH former AS (DELETE FROM tally WHERE space = here AND mailbox = called)
        INSERT INTO tally SELECT here, called,
            (SELECT coalesce(max(slot), -1) + 1 FROM tally WHERE space = here AND mailbox = called),
            (SELECT count(*) FROM delivery WHERE space = here AND due IS NOT NULL AND mailbox = called);
    END IF;
    RETURN QUERY SELECT * FROM mailbox WHERE space = here AND name = called;
END $$;

-- Refuse new mail, then bury what waits; what is leased is buried when it comes back.
CREATE FUNCTION unbind(at float8, here int, called text, OUT died text[], OUT ready text[])
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS $$
DECLARE
    chosen bigint[];
BEGIN
    at := clock(at);
    died := '{}';
    ready := '{}';
    PERFORM FROM mailbox WHERE space = here AND name = called;
    IF NOT FOUND THEN RETURN; END IF;
    UPDATE space SET roster = roster + 1 WHERE space = here;
    DELETE FROM mailbox WHERE space = here AND name = called;  -- waits for who is sending to it
    DELETE FROM tally WHERE space = here AND mailbox = called;
    SELECT p.* INTO died, ready FROM pass_time(at, here, died, ready) p;
    chosen := ARRAY(
        SELECT seq FROM delivery WHERE space = here AND mailbox = called AND line = 0
        UNION ALL SELECT seq FROM delivery
            WHERE space = here AND mailbox = called AND threaded AND state < 3 AND line = 1
        UNION ALL SELECT seq FROM delivery WHERE space = here AND due IS NOT NULL AND mailbox = called);
    chosen := ARRAY(SELECT seq FROM delivery
        WHERE seq = ANY(chosen) AND (state < 2 OR state = 2 AND lease <= at)
        ORDER BY seq FOR UPDATE SKIP LOCKED);
    SELECT f.* INTO died, ready
        FROM finish(at, here, chosen, true, 4, 'unregistered', '', died, ready) f;
END $$;

-- Change these messages; digests: of those whose bodies are discarded. changed: their ids.
CREATE FUNCTION amend(at float8, here int, verb text, ids text[], agent text, digests bytea[],
    OUT changed text[], OUT died text[], OUT ready text[])
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS $$
DECLARE
    row record;
BEGIN
    at := clock(at);
    changed := '{}';
    died := '{}';
    ready := '{}';
    FOR row IN SELECT *, digests[array_position(ids, id)] AS known_by FROM delivery
            WHERE id = ANY(ids) AND space + 0 = here AND (agent IS NULL OR mailbox = agent)
            ORDER BY array_position(ids, id) FOR UPDATE LOOP
        IF verb = 'cancel' THEN
            CONTINUE WHEN row.state > 2 OR row.state = 2 AND row.lease > at;
            SELECT f.* INTO died, ready
                FROM finish(at, here, ARRAY[row.seq], row.threaded, 5, NULL, '', died, ready) f;
        ELSIF verb = 'discard' THEN
            CONTINUE WHEN row.state <> 4;
            UPDATE delivery SET state = 5, body = NULL, digest = coalesce(digest, row.known_by),
                settled = at, reason = NULL, dead = NULL, trim = NULL, fade = CASE
                    WHEN key IS NOT NULL OR awaited > 0 THEN greatest(at + history, at + retention)
                    ELSE at + history END,
                gone = CASE WHEN key IS NOT NULL OR awaited > 0
                    THEN greatest(at + history, at + retention) ELSE at + history END
            WHERE seq = row.seq;
        ELSE
            CONTINUE WHEN row.state <> 4;
            CONTINUE WHEN NOT redrive(at, here, row.seq);
            ready := ready || row.mailbox::text;
        END IF;
        changed := changed || row.id::text;
    END LOOP;
END $$;

-- A dead letter is pending again, last in line; false if its mailbox is not registered.
CREATE FUNCTION redrive(at float8, here int, one bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    row delivery;
    box mailbox;
    in_order boolean;
    behind boolean := false;
BEGIN
    SELECT * INTO row FROM delivery WHERE seq = one;
    SELECT * INTO box FROM mailbox WHERE space = here AND name = row.mailbox FOR KEY SHARE;
    IF NOT FOUND THEN RETURN false; END IF;
    in_order := box.ordered AND row.thread IS NOT NULL;
    IF in_order THEN
        PERFORM pg_advisory_xact_lock(6383211, thread_lock(here, row.mailbox, row.thread));
        PERFORM FROM delivery WHERE space = here AND mailbox = row.mailbox AND thread = row.thread
            AND threaded AND state < 3 LIMIT 1;
        behind := FOUND;
    END IF;
    UPDATE delivery SET seq = nextval('place'), state = 0, line = behind::int, start = at,
        until = at + ttl, expires = at + ttl, threaded = in_order, attempt = 0, fence = fence + 1,
        redrives = redrives + 1, settled = NULL, reason = NULL, dead = NULL, gone = NULL,
        fade = NULL, trim = NULL
        WHERE seq = one;
    PERFORM count_open(here, row.mailbox, 1);
    RETURN true;
END $$;

-- Extend held leases; the places of those that are not held any more. What somebody's transaction is
-- settling or answering is passed over: the others cannot wait for that.
CREATE FUNCTION renew(at float8, here int, ids text[], fences bigint[], seconds float8[])
RETURNS int[] LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    tokens text[] := joined(ids, fences);
    held record;
BEGIN
    at := clock(at);
    FOR held IN SELECT seq, lease,
                renew.seconds[array_position(tokens, id || '.' || fence)] AS seconds FROM delivery d
            WHERE id = ANY(ids) AND space + 0 = here AND id || '.' || fence = ANY(tokens)
                AND state = 2 FOR UPDATE SKIP LOCKED LOOP
        IF held.lease < at + held.seconds THEN  -- else its holder has extended it further
            PERFORM extend(at, here, held.seq, held.seconds);
        END IF;
    END LOOP;
    RETURN ARRAY(SELECT r.n FROM unnest(ids, fences) WITH ORDINALITY AS r(id, fence, n) WHERE NOT EXISTS (
        SELECT FROM delivery d WHERE d.id = r.id AND d.space + 0 = here AND d.fence = r.fence
            AND d.state = 2));
END $$;

-- Let go of what history and retention no longer cover, `most` rows at most; how many that were.
-- Of keyed ones and requests the body goes first.
CREATE FUNCTION tidy(at float8, here int, most int) RETURNS int LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET jit = off AS $$
DECLARE
    chosen bigint[];
BEGIN
    at := clock(at);
    chosen := ARRAY(SELECT seq FROM delivery WHERE space = here AND fade <= at
                    ORDER BY fade LIMIT most FOR UPDATE SKIP LOCKED);
    IF cardinality(chosen) < most THEN
        chosen := chosen || ARRAY(SELECT seq FROM delivery
            WHERE space = here AND trim <= counted(here, '')
            ORDER BY trim LIMIT most - cardinality(chosen) FOR UPDATE SKIP LOCKED);
    END IF;
    IF cardinality(chosen) = 0 THEN RETURN 0; END IF;
    DELETE FROM delivery WHERE seq = ANY(chosen)
        AND (gone <= at OR key IS NULL AND awaited = 0);
    UPDATE delivery SET body = NULL, fade = gone, trim = NULL
        WHERE seq = ANY(chosen) AND (gone > at OR gone IS NULL) AND (key IS NOT NULL OR awaited > 0);
    RETURN cardinality(chosen);
END $$;
