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

local died, topics, soonest, more_ended = {}, {}, nil, false

-- A server out of memory refuses a script at its first write, if that may need memory, and none that
-- it has begun. What drains the server, or keeps a lease, begins with a write that needs none.
local function go_on_when_full()
  call('DEL', P .. 'nothing')
end

-- rows ------------------------------------------------------------------------------------

local FIELDS = {
  'mailbox', 'state', 'place', 'rank', 'fence', 'attempt', 'last', 'lease', 'backoff', 'threaded',
  'thread', 'ends', 'error', 'kept', 'keep', 'awaited', 'answer',
}

local function load(id)
  local v = call('HMGET', P .. 'msg:' .. id, unpack(FIELDS))
  if not v[1] then return nil end
  return {
    id = id, mailbox = v[1], state = v[2], place = tonumber(v[3]), rank = tonumber(v[4]) or 2,
    fence = tonumber(v[5]) or 0, attempt = tonumber(v[6]) or 0, last = v[7] == '1',
    lease = tonumber(v[8]) or 0, backoff = tonumber(v[9]) or 0, thread = v[10] == '1' and v[11],
    ends = tonumber(v[12]), error = v[13] or '', kept = v[14] == '1', keep = v[15],
    awaited = v[16] == '1', answer = v[17],
  }
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

local function soon(at) -- something is due then
  if not soonest or at < soonest then soonest = at end
end

-- lines -----------------------------------------------------------------------------------

local function withdraw(r) -- from wherever it stands
  if r.state == 'pending' then
    if call('ZREM', line(r, 'back'), r.id) == 0 then call('LREM', line(r, 'mail'), 1, r.id) end
  elseif r.state == 'blocked' then
    call('ZREM', line(r, 'behind'), r.id)
  else
    call('ZREM', P .. 'due', r.id)
    if r.state == 'leased' then call('ZREM', P .. 'leased:' .. r.mailbox, r.id) end
  end
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

-- history, retention (ms) and history_max, as the sender stamped them
local function stamped(r)
  local history, retention, most = string.match(r.keep, '(%d+) (%d+) (%d+)')
  return tonumber(history), tonumber(retention), tonumber(most)
end

-- When the body of what ends now goes, and when all of it; nil if it stays: `lifecycle.keeping`.
-- Third: how many may end until its body goes, whenever that is.
local function keep(r, state, reason, answer)
  if state == 'dead' and reason ~= 'expired' then return nil end
  local history, retention, most = stamped(r)
  if answer or state == 'dead' then return now + retention, now + retention end
  local body = now + history
  return body, r.kept and math.max(body, now + retention) or body, most
end

-- Counted, kept for a while, and made known. fields: what else is to be written, with that.
local function ended_as(r, state, reason, answer, fields)
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  ended, more_ended = ended + 1, true
  topics['fate:' .. r.id] = true
  if state == 'dead' then
    call('HSET', META, 'ended', ended) -- first: the number is the place of one dead letter only
    died[#died + 1] = r.id
    call('ZADD', P .. 'dead', ended, r.id)
    call('ZADD', P .. 'dead:' .. r.mailbox, ended, r.id)
    set('ended', ended)
  end
  local fades, gone, most = keep(r, state, reason, answer)
  if fades then
    set('fades', fades)
    set('gone', gone)
    call('ZADD', P .. 'fade', fades, r.id)
    if most then call('ZADD', P .. 'trim', ended + most, r.id) end
  end
  write(r, unpack(fields))
end

local function finish(r, state, reason, err) -- every way an open message ends
  withdraw(r)
  call('ZREM', P .. 'open:' .. r.mailbox, r.id)
  if r.ends and r.state ~= 'leased' then call('ZREM', P .. 'expire', r.id) end
  local fields = {
    'state', state, 'settled', now, 'fence', r.fence + 1, 'attempt', r.attempt, 'error', err or '',
  }
  if reason then
    fields[#fields + 1] = 'reason'
    fields[#fields + 1] = reason
  end
  ended_as(r, state, reason, false, fields)
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

local function line_up(r, due) -- an open message is ready once due; or it ends
  if call('EXISTS', P .. 'box:' .. r.mailbox) == 0 then
    return finish(r, 'dead', 'unregistered', r.error)
  elseif r.ends and r.ends <= now then
    return finish(r, 'dead', 'expired', r.error)
  end
  withdraw(r)
  if r.ends and r.state == 'leased' then
    call('ZADD', P .. 'expire', r.ends, r.id)
    soon(r.ends)
  end
  if due > now then
    r.state = 'scheduled'
    call('ZADD', P .. 'due', due, r.id)
    soon(due)
  else
    ready(r)
  end
  write(r, 'state', r.state, 'due', due, 'fence', r.fence, 'attempt', r.attempt, 'error', r.error)
end

-- In someone's hands until then; it has left its line. Further fields are written with that.
local function lease(r, till, ...)
  if r.ends and r.state ~= 'leased' then call('ZREM', P .. 'expire', r.id) end
  local due = till + r.backoff
  if r.ends then due = math.min(due, math.max(till, r.ends)) end -- past its ttl nothing waits
  r.state = 'leased'
  write(r, 'state', 'leased', 'lease', till, 'due', due, ...)
  call('ZADD', P .. 'due', due, r.id)
  call('ZADD', P .. 'leased:' .. r.mailbox, till, r.id)
  soon(due)
end

-- time ------------------------------------------------------------------------------------

-- Leases end, delays are over, ttls run out: a slice of them. True if there is more to do.
local function pass_time(spare)
  local left = SLICE
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, SLICE + 1)) do
    if id ~= spare then
      if left == 0 then return true end
      left = left - 1
      local r = load(id)
      if not r then
        call('ZREM', P .. 'due', id)
      elseif r.state == 'leased' and r.last then
        finish(r, 'dead', 'exhausted', r.error ~= '' and r.error or 'the lease ended')
      else
        line_up(r, now)
      end
    end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'expire', '-inf', now, 'LIMIT', 0, left + 1)) do
    if left == 0 then return true end
    if id ~= spare then
      left = left - 1
      local r = load(id)
      if r then finish(r, 'dead', 'expired', r.error) else call('ZREM', P .. 'expire', id) end
    end
  end
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
  -- `alarm`: every waiting process looks then, or earlier. Only what is due before is news.
  if soonest and (not alarm or alarm <= now or soonest < alarm) then
    call('HSET', META, 'alarm', soonest)
    local news = 'due:' .. (soonest - now)
    for _, who in ipairs(call('ZRANGEBYSCORE', P .. 'waiting', now - HEARING, '+inf')) do
      if who == ME then own[#own + 1] = news else wake(who, news) end
    end
  end
  return own
end
