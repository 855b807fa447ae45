-- Reading: rows, counts, and what those who wait should hear of.

-- The state at a time: what time alone has changed.
CREATE FUNCTION seen_state(at float8, state smallint, line smallint, start float8, due float8,
    lease float8, last boolean, until float8) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN state > 2 OR state = 2 AND lease > at THEN state
        WHEN state = 2 AND last THEN 4
        WHEN until <= at THEN 4
        WHEN line = 1 THEN (start > at)::int
        WHEN due > at THEN 1
        ELSE 0 END
$$;

-- Rows as the port shows them: a function for each way to look for them, so that each has its plan.
-- named: ids, or a correlation id; places: of these; behind: a cursor to go on behind. Rows that are
-- named are fetched one by one (OFFSET 0 keeps that apart): the planner, which may know nothing of
-- the table yet, would rather read all there is in order than sort those few.
DO $do$
DECLARE
    way record;
BEGIN
    FOR way IN SELECT * FROM (VALUES
        ('ids', '(SELECT DISTINCT unnest(named) AS id) n CROSS JOIN LATERAL ('
            'SELECT * FROM delivery c WHERE c.id = n.id AND c.space + 0 = here OFFSET 0) d',
            'd.seq', 'd.seq', 'coalesce(d.seq > behind, true)'),
        ('places', '(SELECT DISTINCT unnest(places) AS seq) n CROSS JOIN LATERAL ('
            'SELECT * FROM delivery c WHERE c.seq = n.seq OFFSET 0) d',
            'd.seq', 'd.seq', 'true'),
        ('chain', '(SELECT c.seq FROM delivery c WHERE c.space = here AND c.chain = ANY(named)'
            ' UNION SELECT c.seq FROM delivery c WHERE c.id = ANY(named) AND c.space + 0 = here) n'
            ' CROSS JOIN LATERAL ('
            'SELECT * FROM delivery c WHERE c.seq = n.seq OFFSET 0) d',
            'd.seq', 'd.seq', 'd.seq > coalesce(behind, -1)'),
        ('delivery', 'delivery d', 'd.seq', 'd.rank, d.seq', 'd.mailbox = box AND d.line = 0'),
        ('ended', 'delivery d', 'd.dead', 'd.dead', 'd.dead > coalesce(behind, -1)'),
        ('accepted', 'delivery d', 'd.seq', 'd.seq', 'd.seq > coalesce(behind, -1)')
    ) AS w(name, found, place, sorted, chosen) LOOP
        EXECUTE format($sql$
CREATE FUNCTION rows_by_%s(at float8, here int, named text[], places bigint[], box text,
    as_state int, why text, behind bigint, most bigint)
RETURNS TABLE (cursor bigint, id text, mailbox text, body bytea, state int, attempt int,
    accepted float8, leased float8, settled float8, reason text, error text, redrives int,
    fence bigint, thread text, awaited int, answer bytea)
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off SET jit = off AS $fn$
DECLARE
    ended bigint;
BEGIN
    at := clock(at);
    ended := counted(here, '');
    RETURN QUERY SELECT %s, d.id::text, d.mailbox::text,
        CASE WHEN d.fade <= at OR d.trim <= ended THEN NULL ELSE d.body END,
        seen_state(at, d.state, d.line, d.start, d.due, d.lease, d.last, d.until),
        d.attempt, d.accepted, d.leased, d.settled, d.reason, d.error, d.redrives, d.fence,
        d.thread::text, d.awaited::int,
        (SELECT a.body FROM delivery a WHERE a.id = d.answer AND a.space + 0 = here)
    FROM %s
    WHERE d.space = here AND %s
        AND coalesce(d.gone > at, true)
        AND (coalesce(d.trim > ended, true) OR d.key IS NOT NULL OR d.awaited > 0)
        AND (box IS NULL OR d.mailbox = box) AND (why IS NULL OR d.reason = why)
        AND (as_state IS NULL OR as_state
            = seen_state(at, d.state, d.line, d.start, d.due, d.lease, d.last, d.until))
    ORDER BY %s LIMIT most;
END $fn$ $sql$, way.name, way.place, way.found, way.chosen, way.sorted);
    END LOOP;
END $do$;

-- What waits in an ordered mailbox; no row if it is another.
CREATE FUNCTION waiting(at float8, here int, box text)
RETURNS TABLE (rank int, seq bigint, thread text)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off AS $$
    SELECT d.rank, d.seq, CASE WHEN d.threaded THEN d.thread ELSE '' END FROM delivery d
        WHERE d.space = here AND d.mailbox = box AND d.line = 0
    UNION ALL
    SELECT d.rank, d.seq, d.thread FROM delivery d
        WHERE d.space = here AND d.mailbox = box AND d.threaded AND d.state < 3 AND d.line = 1
            AND d.start <= clock(at)
$$;

-- The counts of every mailbox, or of one: pending of each priority.
CREATE FUNCTION counts(at float8, here int, box text)
RETURNS TABLE (name text, seen float8, pending bigint[], leased bigint, scheduled bigint,
    dead bigint, age float8)
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off AS $$
BEGIN
    at := clock(at);
    RETURN QUERY
    WITH open AS (
        SELECT d.mailbox, d.rank, count(*) AS number, min(d.seq) AS first FROM delivery d
            WHERE d.space = here AND d.line = 0 AND (box IS NULL OR d.mailbox = box)
            GROUP BY 1, 2
        UNION ALL
        SELECT d.mailbox, d.rank, count(*), min(d.seq) FROM delivery d
            WHERE d.space = here AND d.threaded AND d.state < 3 AND d.line = 1 AND d.start <= at
                AND (box IS NULL OR d.mailbox = box)
            GROUP BY 1, 2
    ), timed AS (
        SELECT d.mailbox, count(*) FILTER (WHERE d.state = 2 AND d.lease > at) AS held,
            count(*) FILTER (WHERE NOT (d.state = 2 AND d.lease > at)) AS later
        FROM delivery d WHERE d.space = here AND d.due IS NOT NULL AND (box IS NULL OR d.mailbox = box)
        GROUP BY 1
    ), blocked AS (
        SELECT d.mailbox, count(*) AS later FROM delivery d
        WHERE d.space = here AND d.threaded AND d.state < 3 AND d.line = 1 AND d.start > at
            AND (box IS NULL OR d.mailbox = box)
        GROUP BY 1
    ), ended AS (
        SELECT d.mailbox, count(*) AS number FROM delivery d
        WHERE d.space = here AND d.dead IS NOT NULL AND (box IS NULL OR d.mailbox = box) GROUP BY 1
    )
    SELECT m.name::text, m.seen,
        ARRAY(SELECT coalesce(sum(o.number), 0)::bigint FROM generate_series(0, 3) r
            LEFT JOIN open o ON o.rank = r AND o.mailbox = m.name GROUP BY r ORDER BY r),
        coalesce(t.held, 0), coalesce(t.later, 0) + coalesce(b.later, 0), coalesce(e.number, 0),
        (SELECT at - min(f.accepted) FROM open o JOIN delivery f ON f.seq = o.first
            WHERE o.mailbox = m.name)
    FROM mailbox m LEFT JOIN timed t ON t.mailbox = m.name LEFT JOIN blocked b ON b.mailbox = m.name
        LEFT JOIN ended e ON e.mailbox = m.name
    WHERE m.space = here AND (box IS NULL OR m.name = box);
END $$;

CREATE FUNCTION agents(at float8, here int)
RETURNS TABLE (roster bigint, name text, ordered boolean, capacity bigint, max_bytes bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT s.roster, m.name::text, m.ordered, m.capacity, m.max_bytes
    FROM space s LEFT JOIN mailbox m ON m.space = s.space WHERE s.space = here
$$;

-- Let time pass; then which of these mailboxes have ready mail, which of these messages ended or
-- got their result, and in how many seconds something is next due.
CREATE FUNCTION look(at float8, here int, boxes text[], ids text[],
    OUT died text[], OUT mail text[], OUT fates text[], OUT due float8)
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    ready text[];
BEGIN
    at := clock(at);
    SELECT p.* INTO died, ready FROM pass_time(at, here, '{}', '{}') p;
    -- LIMIT keeps it from becoming a join, which would read all that is ready anywhere.
    mail := ARRAY(SELECT box FROM unnest(boxes) box WHERE (SELECT true FROM delivery d
        WHERE d.space = here AND d.mailbox = box AND d.line = 0 LIMIT 1));
    fates := ARRAY(SELECT d.id::text FROM delivery d WHERE d.id = ANY(ids) AND d.space + 0 = here
        AND (d.state > 3 OR d.answer IS NOT NULL OR d.state = 3 AND d.awaited <> 1));
    due := least((SELECT min(d.due) FROM delivery d WHERE d.space = here AND d.due IS NOT NULL),
        (SELECT min(d.expires) FROM delivery d WHERE d.space = here AND d.expires IS NOT NULL)) - at;
END $$;

-- Wake other processes: a hint, for which nothing waits for the disk if it is all there is.
CREATE FUNCTION tell(at float8, here int, channel text, payload text, alone boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF alone THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
    PERFORM pg_notify(channel, payload);
END $$;
