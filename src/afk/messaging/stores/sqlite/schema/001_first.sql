-- One row for the whole file: the seq of the last accepted message.
CREATE TABLE afk_counter (accepted INTEGER NOT NULL);
INSERT INTO afk_counter VALUES (0);

-- A namespace; `roster` rises with every change of its mailboxes, `ended` with every message
-- that ends.
CREATE TABLE afk_space (
    space  INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    roster INTEGER NOT NULL,
    ended  INTEGER NOT NULL
);

CREATE TABLE afk_mailbox (
    space     INTEGER NOT NULL,
    name      TEXT NOT NULL,
    ordered   INTEGER NOT NULL,
    capacity  INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL,
    open      INTEGER NOT NULL,  -- messages that are pending, scheduled or leased
    seen      REAL,              -- when a consumer last asked, to the minute
    PRIMARY KEY (space, name)
) WITHOUT ROWID;

-- A message and its fate. Times are seconds since the epoch. A column that an index is on is
-- NULL where the index has no business with the row, so each index holds only what it serves.
CREATE TABLE afk_delivery (
    seq         INTEGER PRIMARY KEY,  -- the order of acceptance; a redrive takes a new one
    space       INTEGER NOT NULL,
    id          TEXT NOT NULL,
    mailbox     TEXT NOT NULL,
    sender      TEXT NOT NULL,
    key         TEXT,                 -- an explicit idempotency key
    digest      BLOB,                 -- of what is known after its body is gone
    rank        INTEGER NOT NULL,     -- 0 urgent .. 3 low
    body        BLOB,
    state       INTEGER NOT NULL,     -- 0 pending 1 scheduled 2 leased 3 done 4 dead 5 cancelled
    line        INTEGER,              -- 0 ready to claim, 1 behind its thread's head
    start       REAL NOT NULL,        -- not before this; 0 if sent without a delay
    due         REAL,                 -- when a scheduled or leased one is ready again
    lease       REAL,                 -- when the latest lease ends
    fence       INTEGER NOT NULL,     -- rises with every claim and every settle
    attempt     INTEGER NOT NULL,
    last        INTEGER NOT NULL,     -- no attempt is left after this one
    thread      TEXT,                 -- open messages of ordered mailboxes
    chain       TEXT,                 -- the correlation id
    awaited     INTEGER NOT NULL,     -- 1 a request, 2 the answer to one
    answer      TEXT,                 -- the id of what answered it
    ttl         REAL,
    until       REAL,                 -- the end of its ttl
    expires     REAL,                 -- when that ends it: not before its lease is over
    accepted    REAL NOT NULL,
    leased      REAL,                 -- first claimed
    settled     REAL,
    reason      TEXT,
    error       TEXT NOT NULL,
    redrives    INTEGER NOT NULL,
    retention   REAL NOT NULL,
    history     REAL NOT NULL,
    history_max INTEGER NOT NULL,
    gone        REAL,                 -- when the row may go
    fade        REAL,                 -- when something of it may go next
    trim        INTEGER,              -- its body may go once this many have ended
    dead        INTEGER               -- the order of dying
);
CREATE UNIQUE INDEX afk_by_id ON afk_delivery (space, id);
CREATE UNIQUE INDEX afk_by_key ON afk_delivery (space, mailbox, sender, key) WHERE key IS NOT NULL;
CREATE INDEX afk_in_line ON afk_delivery (space, mailbox, line, rank, seq) WHERE line IS NOT NULL;
CREATE INDEX afk_due ON afk_delivery (space, due) WHERE due IS NOT NULL;
CREATE INDEX afk_expiring ON afk_delivery (space, expires) WHERE expires IS NOT NULL;
CREATE INDEX afk_thread ON afk_delivery (space, mailbox, thread, seq) WHERE thread IS NOT NULL;
CREATE INDEX afk_chain ON afk_delivery (space, chain) WHERE chain IS NOT NULL;
CREATE INDEX afk_fading ON afk_delivery (fade) WHERE fade IS NOT NULL;
CREATE INDEX afk_trimming ON afk_delivery (space, trim) WHERE trim IS NOT NULL;
CREATE INDEX afk_dead ON afk_delivery (space, dead) WHERE dead IS NOT NULL;
