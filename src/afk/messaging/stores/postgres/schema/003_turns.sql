-- Taking turns: the outcome of a delivery and what is sent with it, all or nothing.

-- A send, as the port has it.
CREATE TYPE sending AS (
    id text, mailbox text, sender text, rank int, key text, compare boolean, delay float8,
    ttl float8, thread text, chain text, awaited boolean, answers text, alone boolean,
    reason text, error text, retention float8, history float8, history_max bigint,
    digest bytea, body bytea
);

-- A turn's outcome: 'done', 'again' (after `seconds`), 'dead' (for `reason`), 'extend' (by
-- `seconds`; `flag`: it is held, and must not end sooner than it would). flag of 'again': the
-- attempt counts. sends: how many of the sends are this turn's.
CREATE TYPE turning AS (
    id text, fence bigint, outcome text, seconds float8, flag boolean, reason text, error text,
    roster bigint, sends int
);

-- What became of a turn. refusal: NULL, or the port's kind, or 'compare': the message with this id
-- and body may be the same or another, which the caller is to find out. how, of each send:
-- 0 ready, 1 stored, 2 the request's result, 3 known before, 4 ignored.
CREATE TYPE verdict AS (
    refusal text, mailbox text, id text, bound bigint, body bytea, ids text[], how int[],
    died text[], ready text[]
);

CREATE FUNCTION refused(kind text, box text, message text, bound bigint, body bytea)
RETURNS verdict LANGUAGE sql IMMUTABLE AS $$
    SELECT kind, box, message, bound, body, NULL::text[], NULL::int[], '{}'::text[], '{}'::text[]
$$;

-- Tokens, as the library writes them.
CREATE FUNCTION joined(ids text[], fences bigint[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg(t.id || '.' || t.fence ORDER BY t.n)
        FROM unnest(ids, fences) WITH ORDINALITY AS t(id, fence, n)
$$;

CREATE FUNCTION extend(at float8, here int, one bigint, seconds float8) RETURNS void LANGUAGE sql AS $$
    UPDATE delivery SET lease = at + seconds, state = 2, line = NULL,
        due = coalesce(due - lease, 0) + at + seconds,
        expires = CASE WHEN until IS NOT NULL THEN greatest(at + seconds, until) END
    WHERE seq = one
$$;

-- The outcome of a delivery; false if its lease was lost.
CREATE FUNCTION settle(at float8, here int, t turning, INOUT died text[], INOUT ready text[],
    OUT held boolean) LANGUAGE plpgsql AS $$
DECLARE
    row record;
BEGIN
    SELECT seq, lease, threaded INTO row FROM delivery
        WHERE id = t.id AND space + 0 = here AND fence = t.fence AND state < 3 FOR UPDATE;
    held := FOUND;
    IF NOT held THEN RETURN; END IF;
    IF t.outcome = 'extend' THEN
        PERFORM extend(at, here, row.seq, CASE WHEN t.flag THEN greatest(t.seconds, row.lease - at)
                                         ELSE t.seconds END);
    ELSIF t.outcome = 'again' THEN
        UPDATE delivery SET fence = fence + 1, attempt = attempt - (NOT t.flag)::int,
            error = coalesce(nullif(t.error, ''), error) WHERE seq = row.seq;
        SELECT l.* INTO died, ready
            FROM line_up(at, here, ARRAY[row.seq], at + t.seconds, died, ready) l;
    ELSIF t.outcome = 'done' THEN
        SELECT f.* INTO died, ready
            FROM finish(at, here, ARRAY[row.seq], row.threaded, 3, NULL, '', died, ready) f;
    ELSE
        SELECT f.* INTO died, ready
            FROM finish(at, here, ARRAY[row.seq], row.threaded, 4, t.reason, t.error, died, ready) f;
    END IF;
END $$;

-- The message that a send's key or id already names, or a refusal; NULL if it is new.
CREATE FUNCTION known(at float8, here int, s sending) RETURNS verdict LANGUAGE plpgsql AS $$
DECLARE
    first delivery;
    answer verdict;
BEGIN
    IF s.key IS NOT NULL THEN
        SELECT * INTO first FROM delivery
            WHERE space = here AND mailbox = s.mailbox AND sender = s.sender AND key = s.key;
    END IF;
    IF first.seq IS NULL THEN
        SELECT * INTO first FROM delivery WHERE id = s.id AND space + 0 = here;
    END IF;
    IF first.seq IS NULL THEN RETURN NULL; END IF;
    IF first.gone <= at THEN  -- nothing covers it any more
        DELETE FROM delivery WHERE seq = first.seq AND gone <= at;
        RETURN known(at, here, s);
    END IF;
    IF (first.mailbox, first.sender, first.key) IS DISTINCT FROM (s.mailbox, s.sender, s.key) THEN
        RETURN refused('conflict', s.mailbox, first.id, 0, NULL);
    ELSIF s.compare AND first.digest IS NOT NULL AND s.digest IS NOT NULL THEN
        IF first.digest <> s.digest THEN
            RETURN refused('conflict', s.mailbox, first.id, 0, NULL);
        END IF;
    ELSIF s.compare AND first.body IS NOT NULL THEN
        RETURN refused('compare', s.mailbox, first.id, 0, first.body);
    END IF;
    answer.ids := ARRAY[first.id];
    answer.how := ARRAY[3];
    RETURN answer;
END $$;

-- Why a mailbox does not take a send; NULL if it does. A full one lets time pass, and looks again.
CREATE FUNCTION no_place(at float8, here int, s sending, INOUT died text[], INOUT ready text[],
    OUT why verdict, OUT ordered boolean) LANGUAGE plpgsql AS $$
DECLARE
    box mailbox;
    room bigint;
BEGIN
    SELECT * INTO box FROM mailbox WHERE space = here AND name = s.mailbox FOR KEY SHARE;
    IF NOT FOUND THEN
        why := refused('unknown', s.mailbox, s.id, 0, NULL);
        RETURN;
    END IF;
    ordered := box.ordered;
    IF octet_length(s.body) > box.max_bytes THEN
        why := refused('too_large', s.mailbox, s.id, box.max_bytes, NULL);
        RETURN;
    END IF;
    room := box.capacity - CASE WHEN s.rank = 0 THEN 0 ELSE box.capacity / 10 END;
    IF counted(here, s.mailbox) >= room THEN
        SELECT p.* INTO died, ready FROM pass_time(at, here, died, ready) p;
        IF counted(here, s.mailbox) >= room THEN
            why := refused('full', s.mailbox, s.id, box.capacity, NULL);
        END IF;
    END IF;
END $$;

-- A new row: 0 ready, 1 stored, NULL if another transaction was first to store the key or the id.
CREATE FUNCTION store(at float8, here int, s sending, ordered boolean) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    in_order boolean := ordered AND s.thread IS NOT NULL;
    behind boolean := false;
    start float8 := CASE WHEN s.delay > 0 THEN at + s.delay ELSE 0 END;
BEGIN
    IF in_order THEN  -- its place is drawn once it is certain who comes before it
        PERFORM pg_advisory_xact_lock(6383211, thread_lock(here, s.mailbox, s.thread));
        PERFORM FROM delivery WHERE space = here AND mailbox = s.mailbox AND thread = s.thread
            AND threaded AND state < 3 LIMIT 1;
        behind := FOUND;
    END IF;
    INSERT INTO delivery (seq, space, id, mailbox, sender, key, digest, rank, body, start,
        state, line, due, thread, threaded, chain, awaited, ttl, until, expires,
        accepted, retention, history, history_max)
    VALUES (nextval('place'), here, s.id, s.mailbox, s.sender, s.key, s.digest, s.rank, s.body, start,
        CASE WHEN start > at AND NOT behind THEN 1 ELSE 0 END,
        CASE WHEN behind THEN 1 WHEN start > at THEN NULL ELSE 0 END,
        CASE WHEN start > at AND NOT behind THEN start END,
        s.thread, in_order, s.chain, s.awaited::int, s.ttl, at + s.ttl, at + s.ttl,
        at, s.retention, s.history, s.history_max)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN RETURN NULL; END IF;
    PERFORM count_open(here, s.mailbox, 1);
    RETURN (behind OR start > at)::int;
END $$;

-- A message that is over when it is stored: an answer, or a dead letter. False as in `store`.
CREATE FUNCTION store_ended(at float8, here int, s sending, outcome int, why text, what text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ends float8 := CASE WHEN outcome = 3 OR why = 'expired' THEN at + s.retention END;
BEGIN
    INSERT INTO delivery (seq, space, id, mailbox, sender, key, digest, rank, body, start,
        state, thread, chain, awaited, ttl, until, accepted, settled, reason, error,
        dead, gone, fade, retention, history, history_max)
    VALUES (nextval('place'), here, s.id, s.mailbox, s.sender, s.key, s.digest, s.rank, s.body,
        CASE WHEN s.delay > 0 THEN at + s.delay ELSE 0 END, outcome, s.thread, s.chain,
        CASE WHEN outcome = 3 THEN 2 ELSE s.awaited::int END, s.ttl, at + s.ttl, at, at,
        why, what, CASE WHEN outcome = 4 THEN nextval('place') END, ends, ends, s.retention,
        s.history, s.history_max)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN PERFORM count_open(here, '', 1); RETURN true; END IF;
    RETURN false;
END $$;

-- One message: stored, known before, ignored, or refused.
CREATE FUNCTION take_send(at float8, here int, s sending, INOUT died text[], INOUT ready text[],
    OUT answer verdict) LANGUAGE plpgsql AS $$
DECLARE
    request delivery;
    place record;
    refusal verdict;
    how int;
BEGIN
    LOOP
        answer := known(at, here, s);
        IF answer.refusal IS NOT NULL OR answer.ids IS NOT NULL THEN RETURN; END IF;
        answer.ids := ARRAY[s.id];
        IF s.answers IS NOT NULL THEN
            SELECT * INTO request FROM delivery WHERE id = s.answers AND space + 0 = here
                AND coalesce(gone, 'infinity') > at FOR UPDATE;
            IF request.awaited = 1 THEN
                how := answer_to(at, here, s, request);
                IF how IS NULL THEN CONTINUE; END IF;
                answer.how := ARRAY[how];
                RETURN;
            ELSIF request.seq IS NULL AND s.awaited THEN
                answer.how := ARRAY[4];
                RETURN;
            END IF;
        END IF;
        IF s.reason IS NULL THEN
            SELECT * INTO place FROM no_place(at, here, s, died, ready);
            died := place.died;
            ready := place.ready;
            refusal := place.why;
            IF refusal.refusal IS NULL THEN
                how := store(at, here, s, place.ordered);
                IF how IS NULL THEN CONTINUE; END IF;
                IF how = 0 THEN ready := ready || s.mailbox; END IF;
                answer.how := ARRAY[how];
                RETURN;
            ELSIF NOT s.alone THEN
                answer := refusal;
                RETURN;
            END IF;
            s.error := refusal.refusal;
            s.reason := CASE WHEN s.answers IS NULL AND s.error = 'full' THEN 'full'
                             ELSE 'undeliverable' END;  -- a copy of a broadcast; or an answer
        END IF;
        IF store_ended(at, here, s, 4, s.reason, s.error) THEN
            died := died || s.id;
            answer.how := ARRAY[1];
            RETURN;
        END IF;
    END LOOP;
END $$;

-- An answer is done at once, and its request's result; a second one is passed over.
CREATE FUNCTION answer_to(at float8, here int, s sending, request delivery) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
    IF request.answer IS NOT NULL OR request.state = 5 THEN RETURN 4; END IF;
    s.retention := greatest(s.retention, request.retention);  -- as long as who asked counts on it
    IF NOT store_ended(at, here, s, 3, NULL, '') THEN RETURN NULL; END IF;
    -- The request must be found for as long as its result is kept, as a dead letter whole.
    UPDATE delivery SET answer = s.id,
        gone = CASE WHEN state < 3 OR gone IS NOT NULL THEN greatest(gone, at + s.retention) END,
        fade = CASE WHEN state = 4 AND fade IS NOT NULL THEN greatest(fade, at + s.retention)
            ELSE fade END
        WHERE seq = request.seq;
    RETURN 2;
END $$;

-- The copies of a broadcast: all at once, as `post` takes plain sends. The ids of those that were
-- not stored, for whatever reason: `take_send` finds it. Of anything else than such copies, all.
CREATE FUNCTION post_copies(at float8, here int, sends sending[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    left_over text[] := '{}';
BEGIN
    IF NOT (SELECT bool_and(s.alone AND s.compare AND s.reason IS NULL AND s.answers IS NULL)
            AND count(DISTINCT s.mailbox) = count(*) AND count(DISTINCT s.id) = count(*)
            FROM unnest(sends) s) THEN
        RETURN ARRAY(SELECT s.id FROM unnest(sends) s);
    END IF;
    FOR n IN 1 .. cardinality(sends) BY 500 LOOP
        left_over := left_over || (
            SELECT post(at, here, array_agg(s.id), array_agg(s.mailbox), array_agg(s.sender),
                array_agg(s.rank), array_agg(s.key), array_agg(s.thread), array_agg(s.chain),
                array_agg(s.delay), array_agg(s.ttl), array_agg(s.retention), array_agg(s.history),
                array_agg(s.history_max), array_agg(s.digest), array_agg(s.body),
                array_agg(s.awaited))
            FROM unnest(sends[n : n + 499]) s);
    END LOOP;
    RETURN left_over;
END $$;

CREATE FUNCTION apply_turn(at float8, here int, t turning, sends sending[]) RETURNS verdict
LANGUAGE plpgsql AS $$
DECLARE
    answer verdict;
    taken record;
    one verdict;
    s sending;
    died text[] := '{}';
    ready text[] := '{}';
    ids text[] := '{}';
    how int[] := '{}';
    held boolean;
    left_over text[];
BEGIN
    IF t.roster IS NOT NULL THEN
        PERFORM FROM space WHERE space = here AND roster = t.roster FOR SHARE;
        IF NOT FOUND THEN RETURN refused('roster', NULL, NULL, 0, NULL); END IF;
        left_over := post_copies(at, here, sends);
    END IF;
    IF t.id IS NOT NULL THEN
        SELECT u.* INTO died, ready, held FROM settle(at, here, t, died, ready) u;
        IF NOT held THEN RETURN refused('lease_lost', NULL, NULL, 0, NULL); END IF;
    END IF;
    FOREACH s IN ARRAY sends LOOP
        IF NOT s.id = ANY(left_over) THEN
            ids := ids || s.id;
            how := how || (s.delay > 0)::int;
            IF s.delay = 0 THEN ready := ready || s.mailbox; END IF;
            CONTINUE;
        END IF;
        SELECT * INTO taken FROM take_send(at, here, s, died, ready);
        died := taken.died;
        ready := taken.ready;
        one := taken.answer;
        IF one.refusal IS NOT NULL THEN
            one.died := died;
            one.ready := ready;
            RETURN one;
        END IF;
        ids := ids || one.ids;
        how := how || one.how;
    END LOOP;
    answer.ids := ids;
    answer.how := how;
    answer.died := died;
    answer.ready := ready;
    RETURN answer;
END $$;

-- Each turn in order, independent of the others.
CREATE FUNCTION take_turns(at float8, here int,
    ids text[], fences bigint[], outcomes text[], seconds float8[], flags boolean[],
    reasons text[], errors text[], rosters bigint[], counts int[],
    s_ids text[], s_mailboxes text[], s_senders text[], s_ranks int[], s_keys text[],
    s_compares boolean[], s_delays float8[], s_ttls float8[], s_threads text[], s_chains text[],
    s_awaited boolean[], s_answers text[], s_alone boolean[], s_reasons text[], s_errors text[],
    s_retentions float8[], s_histories float8[], s_history_maxes bigint[], s_digests bytea[],
    s_bodies bytea[]
) RETURNS SETOF verdict LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    t turning;
    answer verdict;
    mine sending[];
    first int := 1;
    sends sending[] := ARRAY(SELECT ROW(s.*)::sending FROM unnest(s_ids, s_mailboxes, s_senders,
        s_ranks, s_keys, s_compares, s_delays, s_ttls, s_threads, s_chains, s_awaited, s_answers,
        s_alone, s_reasons, s_errors, s_retentions, s_histories, s_history_maxes, s_digests,
        s_bodies) s);
BEGIN
    at := clock(at);
    FOR t IN SELECT * FROM unnest(ids, fences, outcomes, seconds, flags, reasons, errors, rosters,
                                  counts) LOOP
        mine := sends[first : first + t.sends - 1];
        first := first + t.sends;
        IF t.sends + (t.id IS NOT NULL)::int < 2 THEN
            -- It checks before it writes: a refusal leaves at most what time brought about.
            answer := apply_turn(at, here, t, mine);
        ELSE
            BEGIN
                answer := apply_turn(at, here, t, mine);
                IF answer.refusal IS NOT NULL THEN
                    RAISE EXCEPTION USING ERRCODE = 'AFK00';
                END IF;
            EXCEPTION WHEN SQLSTATE 'AFK00' THEN  -- undone, and what time brought about too
                answer.died := '{}';
                answer.ready := '{}';
            END;
        END IF;
        RETURN NEXT answer;
    END LOOP;
END $$;
