-- What every script shares: the time, rows, and every way a message lines up or ends.
--
-- KEYS[1]  the prefix of all keys of the namespace; it carries their hash tag, so a cluster can route.
-- ARGV[1]  the time in ms since the epoch; '' for the server's own clock.
-- ARGV[2]  the namespace's epoch: what has another was emptied, or is another server's.
-- ARGV[3]  the asking process, the name of its wake-up list.
--
-- A script reads and decides before it writes, since what it wrote before an error stays.

local P, ME = KEYS[1], ARGV[3]
local call = redis.call

-- While a slot is being moved, reading what is not here is refused: so nothing is done by halves.
call('EXISTS', P .. 'nothing')

local now = tonumber(ARGV[1])
if not now then
  local time = call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local META = P .. 'meta'
local epoch, roster, alarm, ended = unpack(call('HMGET', META, 'epoch', 'roster', 'alarm', 'ended'))
if epoch ~= ARGV[2] then
  return redis.error_reply('AFKRESET another epoch')
end
roster, alarm, ended = tonumber(roster) or 0, tonumber(alarm), tonumber(ended) or 0

local PRIORITY = { [0] = 'urgent', 'high', 'normal', 'low' }
local HEARING = 90000 -- ms an ear, a wake-up list or a waiting process is remembered
local SLICE = 200 -- messages that time changes in one script

local died, topics, news, more_ended = {}, {}, nil, false

-- Whole numbers as text, each made once: made by the server, for every argument, it takes longer.
local TEXT = setmetatable({}, {
  __index = function(texts, number)
    local text = string.format('%d', number)
    texts[number] = text
    return text
  end,
})

-- A server out of memory refuses a script at its first write, if that may need memory, and none that
-- it has begun. What drains the server, or keeps a lease, begins with a write that needs none.
local function go_on_when_full()
  call('DEL', P .. 'nothing')
end

-- rows ------------------------------------------------------------------------------------

local function begin(id) -- what every end of a message asks for
  local v = call('HMGET', P .. 'msg:' .. id, 'mailbox', 'state', 'fence', 'ends', 'keep', 'kept',
    'heard', 'threaded')
  if not v[1] then return nil end
  return {
    id = id, mailbox = v[1], state = v[2], fence = tonumber(v[3]) or 0, ends = v[4] and tonumber(v[4]),
    keep = v[5], kept = v[6] == '1', heard = v[7] == '1', thread = v[8],
  }
end

local function complete(r)
  local v = call('HMGET', P .. 'msg:' .. r.id, 'place', 'rank', 'attempt', 'last', 'lease', 'backoff',
    'error', 'awaited', 'answer')
  r.place, r.rank, r.attempt = tonumber(v[1]), tonumber(v[2]) or 2, tonumber(v[3]) or 0
  r.last, r.lease, r.backoff = v[4] == '1', tonumber(v[5]) or 0, tonumber(v[6]) or 0
  r.error, r.awaited, r.answer = v[7] or '', v[8] == '1', v[9]
  return r
end

local function load(id)
  local r = begin(id)
  return r and complete(r)
end

local function write(r, ...)
  call('HSET', P .. 'msg:' .. r.id, ...)
end

local function final(r)
  return r.state == 'done' or r.state == 'dead' or r.state == 'cancelled'
end

local function waits(r) -- open, and in nobody's hands: a lease that ended holds nothing
  return not final(r) and (r.state ~= 'leased' or r.lease <= now)
end

local function line(r, kind)
  return P .. kind .. ':' .. r.mailbox .. ':' .. PRIORITY[r.rank]
end

local function thread(r)
  return P .. 'thread:' .. r.mailbox .. '|' .. r.thread
end

local function soon(at) -- something is to be due then: `alarm` is not after the first of that
  if alarm and alarm <= at then
    -- One that has passed tells nothing of how long those who wait have still to go: clocks jump.
    if alarm <= now and (not news or at < news) then news = at end
    return
  end
  alarm, news = at, at
  call('HSET', META, 'alarm', TEXT[at])
end

-- lines -----------------------------------------------------------------------------------

local function withdraw(r) -- from wherever it stands
  if r.state == 'pending' then
    if call('ZREM', line(r, 'back'), r.id) == 0 then call('LREM', line(r, 'mail'), 1, r.id) end
  elseif r.state == 'blocked' then
    call('ZREM', line(r, 'behind'), r.id)
  else
    call('ZREM', P .. 'due', r.id)
    if r.state == 'scheduled' then call('ZREM', P .. 'later:' .. r.mailbox, r.id) end
  end
end

local function schedule(r, due)
  r.state = 'scheduled'
  soon(due)
  call('ZADD', P .. 'due', TEXT[due], r.id)
  call('ZADD', P .. 'later:' .. r.mailbox, TEXT[due], r.id)
end

local function expire(r)
  soon(r.ends)
  call('ZADD', P .. 'expire', TEXT[r.ends], r.id)
end

local function first_of_thread(r)
  return call('ZRANGE', thread(r), 0, 0)[1]
end

local function ready(r) -- at its old place, unless others of its thread come first
  if r.thread and first_of_thread(r) ~= r.id then
    r.state = 'blocked'
    call('ZADD', line(r, 'behind'), r.place, r.id)
  else
    r.state = 'pending'
    call('ZADD', line(r, 'back'), r.place, r.id)
    topics['mail:' .. r.mailbox] = true
  end
end

-- History and retention (ms) and history_max, as the sender stamped them; most stamp the same.
local STAMPS = {}
local function stamped(text)
  local stamp = STAMPS[text]
  if not stamp then
    local history, retention, most = string.match(text, '(%d+) (%d+) (%d+)')
    stamp = { tonumber(history), tonumber(retention), tonumber(most) }
    STAMPS[text] = stamp
  end
  return stamp[1], stamp[2], stamp[3]
end

-- When the body of what ends now goes, and when all of it; nil if it stays: `lifecycle.keeping`.
-- Third: how many may end until its body goes, whenever that is.
local function keep(r, state, reason, answer)
  if state == 'dead' and reason ~= 'expired' then return nil end
  local history, retention, most = stamped(r.keep)
  if answer or state == 'dead' then return now + retention, now + retention end
  local body = now + history
  return body, r.kept and math.max(body, now + retention) or body, most
end

local function set(fields, name, value)
  local size = #fields
  fields[size + 1], fields[size + 2] = name, value
end

-- Counted, kept for a while, and made known. fields: what else is to be written, with that.
local function ended_as(r, state, reason, answer, fields)
  ended, more_ended = ended + 1, true
  if r.heard then topics['fate:' .. r.id] = true end
  if state == 'dead' then
    call('HSET', META, 'ended', ended) -- first: the number is the place of one dead letter only
    died[#died + 1] = r.id
    call('ZADD', P .. 'dead', ended, r.id)
    call('ZADD', P .. 'dead:' .. r.mailbox, ended, r.id)
    set(fields, 'ended', ended)
  end
  local fades, gone, most = keep(r, state, reason, answer)
  if fades then
    set(fields, 'fades', TEXT[fades])
    set(fields, 'gone', TEXT[gone])
    call('ZADD', P .. 'fade', TEXT[fades], r.id)
    if most then call('ZADD', P .. 'trim', TEXT[ended + most], r.id) end
  end
  write(r, unpack(fields))
end

local function finish(r, state, reason, err) -- every way an open message ends; err: a new one
  local fields = { -- with room for when it goes
    'state', state, 'settled', TEXT[now], 'fence', TEXT[r.fence + 1], nil, nil, nil, nil,
  }
  if err then set(fields, 'error', err) end
  if reason then set(fields, 'reason', reason) end
  ended_as(r, state, reason, false, fields) -- first: half of this script has ended it
  withdraw(r)
  call('ZREM', P .. 'open:' .. r.mailbox, r.id)
  if r.ends and r.state ~= 'leased' then call('ZREM', P .. 'expire', r.id) end
  if r.thread then
    call('ZREM', thread(r), r.id)
    local id = first_of_thread(r)
    local head = id and load(id)
    if head and head.state == 'blocked' then
      withdraw(head)
      ready(head)
      write(head, 'state', head.state)
    end
  end
end

-- An open message is ready once due; or it ends. late: its lease has ended, and until it is due its
-- holder may still settle it.
local function line_up(r, due, late)
  if not (late and due > now) and call('EXISTS', P .. 'box:' .. r.mailbox) == 0 then
    return finish(r, 'dead', 'unregistered')
  elseif r.ends and r.ends <= now then
    return finish(r, 'dead', 'expired')
  end
  withdraw(r)
  if r.ends and r.state == 'leased' then expire(r) end
  if due > now then schedule(r, due) else ready(r) end
  write(r, 'state', r.state, 'due', TEXT[due], 'fence', TEXT[r.fence])
end

local function lend(rows, till) -- what has left its line is somebody's until then
  soon(till)
  local ends = {}
  for _, r in ipairs(rows) do
    if r.ends and r.state ~= 'leased' then call('ZREM', P .. 'expire', r.id) end
    ends[#ends + 1] = TEXT[till]
    ends[#ends + 1] = r.id
  end
  call('ZADD', P .. 'due', unpack(ends))
end

local function lease(r, till)
  lend({ r }, till)
  write(r, 'state', 'leased', 'lease', TEXT[till])
end

-- time ------------------------------------------------------------------------------------

-- Leases end, delays are over, ttls run out: a slice of them. True if there is more to do.
local function pass_time(spare)
  if not alarm or now < alarm then return false end
  local left = SLICE
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, SLICE + 1)) do
    if id ~= spare then
      if left == 0 then return true end
      left = left - 1
      local r = load(id)
      if not r or (r.state ~= 'leased' and r.state ~= 'scheduled') then
        call('ZREM', P .. 'due', id) -- half of a script's writes, after two crashes
      elseif r.state == 'leased' and r.last then
        finish(r, 'dead', 'exhausted', r.error == '' and 'the lease ended')
      else
        line_up(r, r.state == 'leased' and r.lease + r.backoff or now, r.state == 'leased')
      end
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'expire', '-inf', now, 'LIMIT', 0, left + 1)) do
    if left == 0 then return true end
    if id ~= spare then
      left = left - 1
      local r = load(id)
      if r then finish(r, 'dead', 'expired') else call('ZREM', P .. 'expire', id) end
    end
  end
  local first
  for _, set in ipairs({ 'due', 'expire' }) do
    local at = tonumber(call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')[2])
    if at and (not first or at < first) then first = at end
  end
  alarm, news = first, first
  if alarm then call('HSET', META, 'alarm', TEXT[alarm]) else call('HDEL', META, 'alarm') end
  return false
end

local function drop(id) -- all that is known of it
  local key = P .. 'msg:' .. id
  local mailbox, sender, name, chain = unpack(call('HMGET', key, 'mailbox', 'sender', 'key', 'chain'))
  if not mailbox then return end
  call('DEL', key)
  call('ZREM', P .. 'accepted', id)
  call('ZREM', P .. 'fade', id)
  call('ZREM', P .. 'dead', id)
  call('ZREM', P .. 'dead:' .. mailbox, id)
  if name then call('DEL', P .. 'key:' .. mailbox .. '|' .. sender .. '|' .. name) end
  if chain then call('ZREM', P .. 'chain:' .. chain, id) end
end

local function over(id, gone) -- whether nothing covers it any more; then it goes
  gone = tonumber(gone)
  if not gone or gone > now then return false end
  drop(id)
  return true
end

local function fade(id) -- its body goes; of what has no key and is no request or answer, all
  call('ZREM', P .. 'trim', id)
  local key = P .. 'msg:' .. id
  if call('HGET', key, 'kept') == '1' then call('HDEL', key, 'body') else drop(id) end
end

local function forget(most) -- what history and retention no longer cover, so many at most
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'trim', '-inf', ended, 'LIMIT', 0, most)) do
    fade(id)
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'fade', '-inf', now, 'LIMIT', 0, most)) do
    fade(id)
    local gone = call('HGET', P .. 'msg:' .. id, 'gone')
    if not gone then
      call('ZREM', P .. 'fade', id)
    elseif not over(id, gone) then
      call('ZADD', P .. 'fade', gone, id)
    end
  end
end

-- waking ----------------------------------------------------------------------------------

local function wake(who, topic)
  local list = P .. 'wake:' .. who
  if call('RPUSH', list, topic) == 1 then call('PEXPIRE', list, HEARING) end
end

local function hear(topic) -- the asking process waits for this; it says so again now and then
  local key = P .. 'ears:' .. topic
  if call('SADD', key, ME) == 1 or call('PTTL', key) < HEARING - 15000 then
    call('PEXPIRE', key, HEARING)
  end
end

-- Notes how many have ended, and wakes the processes that wait for what happened here; the topics
-- the asking one waits for.
local function tell()
  if more_ended then call('HSET', META, 'ended', ended) end
  local own = {}
  for topic in pairs(topics) do
    local ears = P .. 'ears:' .. topic
    local everyone = call('SMEMBERS', ears)
    for _, who in ipairs(everyone) do
      if who == ME then own[#own + 1] = topic else wake(who, topic) end
    end
    if #everyone > 0 then call('DEL', ears) end
  end
  if news then -- earlier than when every waiting process looks
    local text = 'due:' .. (news - now)
    for _, who in ipairs(call('ZRANGEBYSCORE', P .. 'waiting', now - HEARING, '+inf')) do
      if who == ME then own[#own + 1] = text else wake(who, text) end
    end
  end
  return own
end
