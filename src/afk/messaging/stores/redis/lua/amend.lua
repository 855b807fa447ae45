-- Changes messages by hand.
--
-- ARGV[4]   'cancel' | 'redrive' | 'discard'
-- ARGV[5]   the mailbox they must be of, or ''
-- ARGV[6..] ids
-- Answers   {died, topics, how many were changed}

local function cancel(r)
  if not waits(r) then return false end
  finish(r, 'cancelled')
  return true
end

local function alive(r) -- a dead letter is none any more
  call('ZREM', P .. 'dead', r.id)
  call('ZREM', P .. 'dead:' .. r.mailbox, r.id)
  call('ZREM', P .. 'fade', r.id)
  call('HDEL', P .. 'msg:' .. r.id, 'settled', 'reason', 'ended', 'fades', 'gone', 'ends', 'due',
    'lease', 'threaded')
end

local function redrive(r)
  local ordered = call('HGET', P .. 'box:' .. r.mailbox, 'ordered')
  if r.state ~= 'dead' or not ordered then return false end
  local ttl, name, chain, redrives =
    unpack(call('HMGET', P .. 'msg:' .. r.id, 'ttl', 'thread', 'chain', 'redrives'))
  alive(r)
  r.place = call('HINCRBY', META, 'accepted', 1)
  r.ends = ttl and now + tonumber(ttl)
  r.thread = ordered == '1' and name
  write(r, 'place', r.place, 'attempt', 0, 'fence', r.fence + 1,
    'redrives', (tonumber(redrives) or 0) + 1)
  call('ZADD', P .. 'accepted', r.place, r.id)
  call('ZADD', P .. 'open:' .. r.mailbox, r.place, r.id)
  if chain then call('ZADD', P .. 'chain:' .. chain, r.place, r.id) end
  if r.ends then
    expire(r)
    write(r, 'ends', r.ends)
  end
  if r.thread then
    call('ZADD', thread(r), r.place, r.id)
    write(r, 'threaded', r.thread)
  end
  ready(r)
  write(r, 'state', r.state)
  return true
end

local function discard(r)
  if r.state ~= 'dead' then return false end
  alive(r)
  call('HDEL', P .. 'msg:' .. r.id, 'body')
  ended_as(r, 'cancelled', nil, false, { 'state', 'cancelled', 'settled', now })
  return true
end

local change = ({ cancel = cancel, redrive = redrive, discard = discard })[ARGV[4]]
local changed = 0
for i = 6, #ARGV do
  local r = load(ARGV[i])
  if r and (ARGV[5] == '' or ARGV[5] == r.mailbox) and change(r) then changed = changed + 1 end
end
return { died, tell(), changed }
