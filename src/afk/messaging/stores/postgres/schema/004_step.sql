-- What most calls are, all at once and by sets: plain acks, plain sends, then claims.
--
-- Plain is an ack without sends, and a send that is no answer, no copy and not yet dead. lost:
-- tokens whose lease was lost. left_over: ids of sends that were not stored, for whatever reason:
-- `take_turns` finds it. boxes: of each claim; one of mosts = 0 only lets time pass. backoffs: the
-- delay after each attempt, at most, claim after claim, `steps` for each; jitters: a random part of it. got: how many messages each claim got, of the lists that follow.
CREATE FUNCTION step(at float8, here int,
    ack_ids text[], ack_fences bigint[],
    ids text[], mailboxes text[], senders text[], ranks int[], keys text[], threads text[],
    chains text[], delays float8[], ttls float8[], retentions float8[], histories float8[],
    history_maxes bigint[], digests bytea[], bodies bytea[], awaits boolean[],
    boxes text[], mosts int[], seconds float8[], attempts int[], steps int[], backoffs float8[],
    jitters boolean[], chances float8[],
    OUT lost int[], OUT left_over text[], OUT died text[], OUT ready text[],
    OUT registered boolean[], OUT got int[], OUT got_ids text[], OUT got_fences bigint[],
    OUT got_attempts int[], OUT got_redrives int[], OUT got_bodies bytea[]
) LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off AS $$
DECLARE
    taken record;
    first int := 1;
BEGIN
    at := clock(at);
    died := '{}';
    ready := '{}';
    IF cardinality(ack_ids) > 0 THEN
        SELECT a.* INTO lost, died, ready FROM ack(at, here, ack_ids, ack_fences, died, ready) a;
    END IF;
    IF cardinality(ids) > 0 THEN
        left_over := post(at, here, ids, mailboxes, senders, ranks, keys, threads, chains, delays,
            ttls, retentions, histories, history_maxes, digests, bodies, awaits);
    END IF;
    IF cardinality(boxes) > 0 THEN
        SELECT p.* INTO died, ready FROM pass_time(at, here, died, ready) p;
    END IF;
    FOR n IN 1 .. cardinality(boxes) LOOP
        IF mosts[n] > 0 THEN
            SELECT * INTO taken FROM claim(at, here, boxes[n], mosts[n], seconds[n], attempts[n],
                backoffs[first : first + steps[n] - 1], jitters[n], chances[n]);
            registered[n] := taken.registered;
            got[n] := coalesce(cardinality(taken.ids), 0);
            IF got[n] > 0 THEN
                got_ids := got_ids || taken.ids;
                got_fences := got_fences || taken.fences;
                got_attempts := got_attempts || taken.tries;
                got_redrives := got_redrives || taken.redrives;
                got_bodies := got_bodies || taken.bodies;
            END IF;
        ELSE
            registered[n] := true;
            got[n] := 0;
        END IF;
        first := first + steps[n];
    END LOOP;
END $$;

CREATE FUNCTION ack(at float8, here int, ids text[], fences bigint[],
    OUT lost int[], INOUT died text[], INOUT ready text[]) LANGUAGE plpgsql AS $$
DECLARE
    tokens text[] := joined(ids, fences);  -- a message can be there twice, once with a lost lease
    chosen bigint[];
    places int[];
    threaded boolean;
BEGIN
    SELECT array_agg(h.seq), array_agg(h.n), bool_or(h.threaded) INTO chosen, places, threaded FROM (
        SELECT seq, array_position(tokens, id || '.' || fence) AS n, d.threaded FROM delivery d
        WHERE id = ANY(ids) AND space + 0 = here AND id || '.' || fence = ANY(tokens) AND state < 3
        FOR UPDATE) h;
    IF cardinality(chosen) IS DISTINCT FROM cardinality(ids) THEN
        lost := ARRAY(SELECT n FROM generate_series(1, cardinality(ids)) n
                      WHERE NOT n = ANY(coalesce(places, '{}')));
    END IF;
    IF chosen IS NOT NULL THEN
        SELECT f.* INTO died, ready
            FROM finish(at, here, chosen, threaded, 3, NULL, '', died, ready) f;
    END IF;
END $$;

-- A mailbox takes its sends if it has room for all of them.
CREATE FUNCTION post(at float8, here int,
    ids text[], mailboxes text[], senders text[], ranks int[], keys text[], threads text[],
    chains text[], delays float8[], ttls float8[], retentions float8[], histories float8[],
    history_maxes bigint[], digests bytea[], bodies bytea[], awaits boolean[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    boxes text[];
    in_order boolean[];
    sizes bigint[];
    stored text[];
    stored_in text[];
BEGIN
    SELECT array_agg(b.name), array_agg(b.ordered), array_agg(b.max_bytes)
        INTO boxes, in_order, sizes FROM (
            SELECT name, ordered, max_bytes, capacity - capacity / 10 AS room FROM mailbox
            WHERE space = here AND name = ANY(mailboxes) FOR KEY SHARE) b
        WHERE b.room >= cardinality(array_positions(mailboxes, b.name))
            + (SELECT coalesce(sum(number), 0) FROM tally WHERE space = here AND mailbox = b.name);
    IF boxes IS NULL THEN RETURN ids; END IF;
    WITH sent AS (
        INSERT INTO delivery (seq, space, id, mailbox, sender, key, digest, rank, body, start, state,
            line, due, thread, chain, ttl, until, expires, accepted, retention, history, history_max,
            awaited)
        SELECT nextval('place'), here, id, mailbox, sender, key, digest, rank, body,
            CASE WHEN delay > 0 THEN at + delay ELSE 0 END, CASE WHEN delay > 0 THEN 1 ELSE 0 END,
            CASE WHEN delay > 0 THEN NULL ELSE 0 END, CASE WHEN delay > 0 THEN at + delay END,
            thread, chain, ttl, at + ttl, at + ttl, at, retention, history, history_max,
            await::int
        FROM unnest(ids, mailboxes, senders, ranks, keys, threads, chains, delays, ttls, retentions,
            histories, history_maxes, digests, bodies, awaits)
            AS s(id, mailbox, sender, rank, key, thread, chain, delay, ttl, retention, history,
                history_max, digest, body, await)
        WHERE octet_length(body) <= sizes[array_position(boxes, mailbox)]
            AND (thread IS NULL OR NOT in_order[array_position(boxes, mailbox)])
        ON CONFLICT DO NOTHING RETURNING id, mailbox
    )
    SELECT array_agg(s.id), array_agg(s.mailbox) INTO stored, stored_in FROM sent s;
    IF stored IS NOT NULL THEN PERFORM count_all(here, stored_in, 1); END IF;
    IF cardinality(stored) = cardinality(ids) THEN RETURN NULL; END IF;
    RETURN ARRAY(SELECT id FROM unnest(ids) id WHERE NOT id = ANY(coalesce(stored, '{}')));
END $$;

-- The chance of the n-th message of a batch, as `lifecycle.spread` has it.
CREATE FUNCTION part(chance float8, n int) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT (chance + n * 0.6180339887498949::float8) - floor(chance + n * 0.6180339887498949::float8)
$$;

CREATE FUNCTION claim(at float8, here int, box text, most int, seconds float8, attempts int,
    backoffs float8[], jitter boolean, chance float8,
    OUT registered boolean, OUT ids text[], OUT fences bigint[], OUT tries int[], OUT redrives int[],
    OUT bodies bytea[]) LANGUAGE plpgsql AS $$
DECLARE
    asked float8;
    chosen bigint[];
BEGIN
    SELECT coalesce(seen, 0) INTO asked FROM mailbox WHERE space = here AND name = box;
    registered := FOUND;
    IF NOT registered THEN RETURN; END IF;
    IF abs(at - asked) > 30 THEN  -- an idle consumer must not write
        PERFORM FROM mailbox WHERE space = here AND name = box FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN UPDATE mailbox SET seen = at WHERE space = here AND name = box; END IF;
    END IF;
    chosen := ARRAY(SELECT seq FROM delivery WHERE space = here AND mailbox = box AND line = 0
                    ORDER BY rank, seq LIMIT most FOR UPDATE SKIP LOCKED);
    IF cardinality(chosen) = 0 THEN RETURN; END IF;
    WITH taken AS (
        UPDATE delivery d SET state = 2, line = NULL, attempt = attempt + 1,
            fence = fence + 1, last = attempt + 1 >= attempts, lease = at + seconds,
            leased = coalesce(leased, at),
            expires = CASE WHEN until IS NOT NULL THEN greatest(at + seconds, until) END,
            due = at + seconds + CASE
                WHEN attempt + 1 >= attempts THEN 0
                ELSE backoffs[least(attempt + 1, cardinality(backoffs))] * CASE WHEN jitter
                    THEN part(chance, array_position(chosen, seq) - 1) ELSE 1 END END
        WHERE seq = ANY(chosen)
        RETURNING array_position(chosen, seq) AS n, d.id, d.fence, d.attempt, d.redrives, d.body
    )
    SELECT array_agg(t.id), array_agg(t.fence), array_agg(t.attempt), array_agg(t.redrives),
            array_agg(t.body)
        INTO ids, fences, tries, redrives, bodies FROM (SELECT * FROM taken ORDER BY n) t;
END $$;

-- What became of a turn; in the last row instead what claims came to, as `step` has it.
CREATE TYPE verdict_or_claims AS (
    refusal text, mailbox text, id text, bound bigint, body bytea, ids text[], how int[],
    died text[], ready text[], registered boolean[], got int[], got_ids text[], got_fences bigint[],
    got_attempts int[], got_redrives int[], got_bodies bytea[]
);

-- `take_turns`, then claims: what a handler sends with its ack, and what it takes up next.
CREATE FUNCTION take_turns_then_claim(at float8, here int,
    ids text[], fences bigint[], outcomes text[], seconds float8[], flags boolean[],
    reasons text[], errors text[], rosters bigint[], counts int[],
    s_ids text[], s_mailboxes text[], s_senders text[], s_ranks int[], s_keys text[],
    s_compares boolean[], s_delays float8[], s_ttls float8[], s_threads text[], s_chains text[],
    s_awaited boolean[], s_answers text[], s_alone boolean[], s_reasons text[], s_errors text[],
    s_retentions float8[], s_histories float8[], s_history_maxes bigint[], s_digests bytea[],
    s_bodies bytea[],
    boxes text[], mosts int[], leases float8[], attempts int[], steps int[], backoffs float8[],
    jitters boolean[], chances float8[]
) RETURNS SETOF verdict_or_claims LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    at := clock(at);
    RETURN QUERY SELECT t.*, NULL::boolean[], NULL::int[], NULL::text[], NULL::bigint[],
            NULL::int[], NULL::int[], NULL::bytea[]
        FROM take_turns(at, here, ids, fences, outcomes, seconds, flags, reasons, errors, rosters,
            counts, s_ids, s_mailboxes, s_senders, s_ranks, s_keys, s_compares, s_delays, s_ttls,
            s_threads, s_chains, s_awaited, s_answers, s_alone, s_reasons, s_errors, s_retentions,
            s_histories, s_history_maxes, s_digests, s_bodies) t;
    RETURN QUERY SELECT NULL, NULL, NULL, NULL::bigint, NULL::bytea, NULL::text[], NULL::int[],
            c.died, c.ready, c.registered, c.got, c.got_ids, c.got_fences, c.got_attempts,
            c.got_redrives, c.got_bodies
        FROM step(at, here, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
            '{}', '{}', '{}', '{}', '{}', boxes, mosts, leases, attempts, steps, backoffs, jitters,
            chances) c;
END $$;
