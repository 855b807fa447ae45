-- The course of an open message: every way it lines up or ends. What is called from outside sets
-- what these need: the search path, and plans that trust the indexes.
--
-- died: ids of dead letters made in this call; ready: mailboxes that got ready mail.

CREATE FUNCTION clock(at float8) RETURNS float8 LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(at, extract(epoch FROM clock_timestamp())::float8)
$$;

-- Add to a mailbox's tally: to a slot that is free, or to a new one. Its number is drawn by lot: the
-- next in line may be one that an open transaction has made, which would be waited for.
CREATE FUNCTION count_open(here int, box text, step bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        UPDATE tally SET number = number + step WHERE space = here AND mailbox = box AND slot = (
            SELECT slot FROM tally WHERE space = here AND mailbox = box
            ORDER BY slot LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED);
        EXIT WHEN FOUND;
        INSERT INTO tally VALUES (here, box, 1000000000 * random(), step) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
END $$;

-- The same to several, in one order: `step` for each time a mailbox is named.
CREATE FUNCTION count_all(here int, boxes text[], step bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF boxes[1] = ALL(boxes) THEN
        PERFORM count_open(here, boxes[1], step * cardinality(boxes));
    ELSE
        PERFORM count_open(here, b.name, step * b.number) FROM (
            SELECT name, count(*) AS number FROM unnest(boxes) name GROUP BY name ORDER BY name) b;
    END IF;
END $$;

-- A tally.
CREATE FUNCTION counted(here int, box text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT coalesce(sum(number), 0) FROM tally WHERE space = here AND mailbox = box);
END $$;

-- Which of the locks that keep threads in order is a thread's. Few, so that a turn of any size
-- fits into the server's table of locks.
CREATE FUNCTION thread_lock(here int, box text, thread text) RETURNS int LANGUAGE sql IMMUTABLE
AS $$ SELECT hashtext(here || '/' || box || '/' || thread) & 1023 $$;

-- Lock the threads of these messages, until the end of the transaction, always in one order.
CREATE FUNCTION lock_threads(here int, chosen bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(6383211, lock) FROM (
        SELECT DISTINCT thread_lock(space, mailbox, thread) AS lock FROM delivery
            WHERE seq = ANY(chosen) AND threaded ORDER BY 1) locks;
END $$;

-- Every way open messages end comes through here; boxes and threads: whose threads are to go on.
-- what: the error; '' keeps the last attempt's, NULL says that the lease ended.
CREATE FUNCTION close_rows(
    at float8, here int, chosen bigint[], outcome int, why text, what text,
    INOUT died text[], OUT boxes text[], OUT threads text[]
) LANGUAGE plpgsql AS $$
DECLARE
    number bigint := counted(here, '') + cardinality(chosen);
    ids text[];
BEGIN
    WITH ended AS (
        UPDATE delivery SET state = outcome, line = NULL, due = NULL, expires = NULL,
            fence = fence + 1, settled = at, reason = why,
            error = CASE WHEN what IS NULL THEN coalesce(nullif(error, ''), 'the lease ended')
                         WHEN what = '' THEN error ELSE what END,
            dead = CASE WHEN outcome = 4 THEN nextval('place') END,
            gone = CASE WHEN outcome <> 4 THEN greatest(gone, at + history, CASE
                                 WHEN key IS NOT NULL OR awaited > 0 THEN at + retention END)
                        WHEN why = 'expired' THEN at + retention END,
            fade = CASE WHEN outcome <> 4 THEN at + history
                        WHEN why = 'expired' THEN at + retention END,
            trim = CASE WHEN outcome <> 4 THEN number + history_max END
        WHERE seq = ANY(chosen) AND state < 3
        RETURNING id, mailbox, CASE WHEN threaded THEN thread END AS thread
    )
    SELECT array_agg(id), array_agg(mailbox), array_agg(thread) INTO ids, boxes, threads FROM ended;
    IF ids IS NOT NULL THEN
        PERFORM count_all(here, boxes, -1);
        PERFORM count_open(here, '', cardinality(ids));
        IF outcome = 4 THEN died := died || ids; END IF;
    END IF;
END $$;

-- These end, and their threads go on. The rows are locked by the caller. threaded: whether any of
-- them belongs to a thread that is kept in order.
CREATE FUNCTION finish(
    at float8, here int, chosen bigint[], threaded boolean, outcome int, why text, what text,
    INOUT died text[], INOUT ready text[]
) LANGUAGE plpgsql AS $$
DECLARE
    boxes text[];
    threads text[];
BEGIN
    IF threaded THEN PERFORM lock_threads(here, chosen); END IF;
    SELECT c.* INTO died, boxes, threads
        FROM close_rows(at, here, chosen, outcome, why, what, died) c;
    IF threaded THEN
        SELECT g.* INTO died, ready FROM go_on(at, here, boxes, threads, died, ready) g;
    END IF;
END $$;

-- What heads each of these threads now takes its place, or ends if it has nowhere to go.
CREATE FUNCTION go_on(
    at float8, here int, boxes text[], threads text[], INOUT died text[], INOUT ready text[]
) LANGUAGE plpgsql AS $$
DECLARE
    place record;
    head record;
    home text;
    going bigint;
    over bigint[];
BEGIN
    FOR place IN SELECT DISTINCT * FROM unnest(boxes, threads) AS t(box, thread)
                 WHERE t.thread IS NOT NULL ORDER BY 1, 2 LOOP
        SELECT name INTO home FROM mailbox WHERE space = here AND name = place.box FOR KEY SHARE;
        LOOP
            SELECT seq, line, start, until INTO head FROM delivery
                WHERE space = here AND mailbox = place.box AND thread = place.thread
                    AND threaded AND state < 3
                ORDER BY seq LIMIT 1 FOR UPDATE;
            EXIT WHEN NOT FOUND OR head.line IS DISTINCT FROM 1;
            IF home IS NOT NULL AND (head.until IS NULL OR head.until > at) THEN
                UPDATE delivery SET
                    state = CASE WHEN start > at THEN 1 ELSE 0 END,
                    line = CASE WHEN start > at THEN NULL ELSE 0 END,
                    due = CASE WHEN start > at THEN start END,
                    expires = until
                WHERE seq = head.seq;
                IF head.start <= at THEN ready := ready || place.box; END IF;
                EXIT;
            END IF;
            -- All of a long thread may end at once: what comes before the first that can go on.
            going := (SELECT min(seq) FROM delivery
                WHERE space = here AND mailbox = place.box AND thread = place.thread
                    AND threaded AND state < 3 AND home IS NOT NULL AND coalesce(until > at, true));
            over := ARRAY(SELECT seq FROM delivery
                WHERE space = here AND mailbox = place.box AND thread = place.thread
                    AND threaded AND state < 3 AND coalesce(seq < going, true)
                ORDER BY seq FOR UPDATE);
            SELECT c.died INTO died FROM close_rows(at, here, over, 4,
                CASE WHEN home IS NULL THEN 'unregistered' ELSE 'expired' END, '', died) c;
        END LOOP;
    END LOOP;
END $$;

-- Open messages are ready, at their places, once it is `moment`; what has nowhere to go ends.
CREATE FUNCTION line_up(
    at float8, here int, chosen bigint[], moment float8, INOUT died text[], INOUT ready text[]
) LANGUAGE plpgsql AS $$
DECLARE
    boxes text[];
    homeless bigint[];
    late bigint[];
    threaded boolean;
BEGIN
    boxes := ARRAY(SELECT name FROM mailbox WHERE space = here AND name = ANY(
        ARRAY(SELECT mailbox FROM delivery WHERE seq = ANY(chosen))) FOR KEY SHARE);
    SELECT array_agg(seq) FILTER (WHERE NOT mailbox = ANY(boxes)),
            array_agg(seq) FILTER (WHERE mailbox = ANY(boxes) AND until <= at), bool_or(d.threaded)
        INTO homeless, late, threaded FROM delivery d WHERE seq = ANY(chosen);
    IF homeless IS NOT NULL THEN
        SELECT f.* INTO died, ready FROM finish(at, here, homeless, threaded, 4, 'unregistered', '', died, ready) f;
    END IF;
    IF late IS NOT NULL THEN
        SELECT f.* INTO died, ready FROM finish(at, here, late, threaded, 4, 'expired', '', died, ready) f;
    END IF;
    UPDATE delivery SET expires = until,
        state = CASE WHEN moment > at THEN 1 ELSE 0 END,
        line = CASE WHEN moment > at THEN NULL ELSE 0 END,
        due = CASE WHEN moment > at THEN moment END
    WHERE seq = ANY(chosen) AND state < 3;
    IF moment <= at THEN ready := ready || boxes; END IF;
END $$;

-- Leases end, delays are over, ttls run out: for all mailboxes of the namespace, in slices. What
-- another transaction is about to settle, or whose thread it is at work on, is left to the next.
CREATE FUNCTION pass_time(at float8, here int, INOUT died text[], INOUT ready text[])
LANGUAGE plpgsql AS $$
DECLARE
    any_due boolean;
    any_late boolean;
    slice int;
    over bigint[];
    back bigint[];
    in_order boolean;
BEGIN
    -- Most of the time there is nothing: that is found out at the least cost.
    SELECT EXISTS (SELECT FROM delivery WHERE space = here AND due <= at),
        EXISTS (SELECT FROM delivery WHERE space = here AND expires <= at) INTO any_due, any_late;
    WHILE any_due LOOP
        SELECT count(*), array_agg(seq) FILTER (WHERE state = 2 AND last AND free),
                array_agg(seq) FILTER (WHERE NOT (state = 2 AND last) AND free), bool_or(threaded)
            INTO slice, over, back, in_order FROM (
                SELECT *, NOT threaded
                    OR pg_try_advisory_xact_lock(6383211, thread_lock(here, mailbox, thread)) AS free
                FROM (SELECT seq, state, last, threaded, mailbox, thread FROM delivery
                        WHERE space = here AND due <= at ORDER BY due
                        LIMIT 200 FOR UPDATE SKIP LOCKED) locked OFFSET 0) due;
        IF over IS NOT NULL THEN
            SELECT f.* INTO died, ready
                FROM finish(at, here, over, in_order, 4, 'exhausted', NULL, died, ready) f;
        END IF;
        IF back IS NOT NULL THEN
            SELECT f.* INTO died, ready FROM line_up(at, here, back, at, died, ready) f;
        END IF;
        any_due := slice = 200 AND coalesce(over, back) IS NOT NULL;
    END LOOP;
    WHILE any_late LOOP
        SELECT count(*), array_agg(seq) FILTER (WHERE free) INTO slice, over FROM (
                SELECT *, NOT threaded
                    OR pg_try_advisory_xact_lock(6383211, thread_lock(here, mailbox, thread)) AS free
                FROM (SELECT seq, threaded, mailbox, thread FROM delivery
                        WHERE space = here AND expires <= at ORDER BY expires
                        LIMIT 200 FOR UPDATE SKIP LOCKED) locked OFFSET 0) expired;
        IF over IS NOT NULL THEN
            SELECT f.* INTO died, ready
                FROM line_up(at, here, over, at, died, ready) f;
        END IF;
        any_late := slice = 200 AND over IS NOT NULL;
    END LOOP;
END $$;
