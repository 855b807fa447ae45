-- Text is compared byte by byte, whatever the database's collation: faster, and an index outlives
-- an upgrade of the system's locales.

-- The order of everything: of acceptance, and of dying.
CREATE SEQUENCE place;

-- A namespace; `roster` rises with every change of its mailboxes.
CREATE TABLE space (
    space  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name   text COLLATE "C" NOT NULL UNIQUE,
    mark   uuid NOT NULL DEFAULT gen_random_uuid(),
    roster bigint NOT NULL DEFAULT 0
);

CREATE TABLE mailbox (
    space     int NOT NULL,
    name      text COLLATE "C" NOT NULL,
    ordered   boolean NOT NULL,
    capacity  bigint NOT NULL,
    max_bytes bigint NOT NULL,
    seen      float8,  -- when a consumer last asked, to the half minute
    PRIMARY KEY (space, name)
) WITH (fillfactor = 50);

-- How many open messages a mailbox has, and under the name '' how many of the namespace have
-- ended: the sum of slots. A transaction writes to any slot that no other is writing to, so
-- nobody waits for a counter.
CREATE TABLE tally (
    space   int NOT NULL,
    mailbox text COLLATE "C" NOT NULL,
    slot    int NOT NULL,
    number  bigint NOT NULL,
    PRIMARY KEY (space, mailbox, slot)
) WITH (fillfactor = 10);

-- A message and its fate. Times are seconds since the epoch. A column that an index is on is NULL
-- where the index has no business with the row, so each index holds only what it serves.
CREATE TABLE delivery (
    seq         bigint NOT NULL,           -- the order of acceptance; a redrive takes a new one
    start       float8 NOT NULL,           -- not before this; 0 if sent without a delay
    due         float8,                    -- when a scheduled or leased one is ready again
    lease       float8,                    -- when the latest lease ends
    ttl         float8,
    until       float8,                    -- the end of its ttl
    expires     float8,                    -- when that ends it: not before its lease is over
    accepted    float8 NOT NULL,
    leased      float8,                    -- first claimed
    settled     float8,
    retention   float8 NOT NULL,
    history     float8 NOT NULL,
    history_max bigint NOT NULL,
    gone        float8,                    -- when the row may go
    fade        float8,                    -- when something of it may go next
    trim        bigint,                    -- its body may go once this many have ended
    dead        bigint,                    -- the order of dying
    fence       bigint NOT NULL DEFAULT 0, -- rises with every claim and every settle
    space       int NOT NULL,
    attempt     int NOT NULL DEFAULT 0,
    redrives    int NOT NULL DEFAULT 0,
    state       smallint NOT NULL,  -- 0 pending 1 scheduled 2 leased 3 done 4 dead 5 cancelled
    line        smallint,                  -- 0 ready to claim, 1 behind its thread's head
    rank        smallint NOT NULL,         -- 0 urgent .. 3 low
    awaited     smallint NOT NULL DEFAULT 0, -- 1 a request, 2 the answer to one
    last        boolean NOT NULL DEFAULT false, -- no attempt is left after this one
    threaded    boolean NOT NULL DEFAULT false, -- its mailbox keeps threads in order
    id          text COLLATE "C" NOT NULL,
    mailbox     text COLLATE "C" NOT NULL,
    sender      text COLLATE "C" NOT NULL,
    key         text COLLATE "C",          -- an explicit idempotency key
    thread      text COLLATE "C",
    chain       text COLLATE "C",          -- the correlation id
    answer      text COLLATE "C",          -- the id of what answered it
    reason      text,
    error       text NOT NULL DEFAULT '',
    digest      bytea,                     -- of what is known after its body is gone
    body        bytea,
    PRIMARY KEY (seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_limit = 2000, autovacuum_analyze_scale_factor = 0.1
);
-- A function's plans are made at its first call, when there may be next to nothing here, and then the
-- planner takes any index that leads with the namespace to be as good as the right one. So the one
-- over all of a namespace comes first, which loses a draw; a message is looked for by its seq alone, or
-- by `id = .. AND space + 0 = here`, for which there is one index each, however many are asked for.
-- Without statistics, no namespace is taken to be empty for being younger than they are.
ALTER TABLE delivery ALTER COLUMN space SET STATISTICS 0;
CREATE INDEX in_order ON delivery (space, seq);
CREATE UNIQUE INDEX by_id ON delivery (id, space);
CREATE UNIQUE INDEX by_key ON delivery (space, mailbox, sender, key) WHERE key IS NOT NULL;
CREATE INDEX in_line ON delivery (space, mailbox, rank, seq) WHERE line = 0;
CREATE INDEX by_due ON delivery (space, due) WHERE due IS NOT NULL;
CREATE INDEX by_expiry ON delivery (space, expires) WHERE expires IS NOT NULL;
CREATE INDEX in_thread ON delivery (space, mailbox, thread, seq) WHERE threaded AND state < 3;
CREATE INDEX by_chain ON delivery (space, chain, seq) WHERE chain IS NOT NULL;
CREATE INDEX by_fading ON delivery (space, fade) WHERE fade IS NOT NULL;
CREATE INDEX by_trimming ON delivery (space, trim) WHERE trim IS NOT NULL;
CREATE INDEX by_death ON delivery (space, dead) WHERE dead IS NOT NULL;
