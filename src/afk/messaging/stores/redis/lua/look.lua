-- Reads rows, changing nothing.
--
-- ARGV[4] 'ids'    [6..] ids; with ARGV[5] = 1 the asking process is told of their fate
--         'index'  [5] a sorted set of ids (accepted, dead, dead:<mailbox>, open:<mailbox>,
--                  chain:<id>), [6] the score to start behind, [7] how many, [8] 1: with bodies
--         'line'   [5] a mailbox, [6] how many of each priority
-- Answers {died, topics, now, {id, field, ..., body or false, body of the answer or false}, ...}

local SHOWN = {
  'mailbox', 'state', 'attempt', 'accepted', 'leased', 'settled', 'reason', 'error', 'redrives',
  'fence', 'thread', 'awaited', 'place', 'ended', 'lease', 'due', 'last', 'ends', 'fades', 'gone',
  'rank', 'threaded', 'backoff', 'answer',
}

go_on_when_full()
local rows = {}

local function show(id, bodies)
  local key = P .. 'msg:' .. id
  local v = call('HMGET', key, unpack(SHOWN))
  if not v[1] then return nil end
  local row = { id, unpack(v) }
  row[#SHOWN + 2] = bodies and call('HGET', key, 'body')
  row[#SHOWN + 3] = bodies and v[#SHOWN] and call('HGET', P .. 'msg:' .. v[#SHOWN], 'body')
  rows[#rows + 1] = row
  return v
end

local function undecided(v) -- neither over nor answered
  local state, answered = v[2], v[#SHOWN]
  return state ~= 'dead' and state ~= 'cancelled' and not answered
    and not (state == 'done' and v[12] ~= '1')
end

local verb = ARGV[4]
if verb == 'ids' then
  for i = 6, #ARGV do
    local v = show(ARGV[i], true)
    if v and ARGV[5] == '1' and undecided(v) then
      hear('fate:' .. ARGV[i])
      call('HSET', P .. 'msg:' .. ARGV[i], 'heard', 1)
    end
  end
elseif verb == 'index' then
  local after = ARGV[6] == '' and '-inf' or '(' .. ARGV[6]
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. ARGV[5], after, '+inf', 'LIMIT', 0, ARGV[7])) do
    show(id, ARGV[8] == '1')
  end
else
  local last = tonumber(ARGV[6]) - 1
  for rank = 0, 3 do
    local at = ARGV[5] .. ':' .. PRIORITY[rank]
    for _, id in ipairs(call('LRANGE', P .. 'mail:' .. at, 0, last)) do show(id, true) end
    for _, id in ipairs(call('ZRANGE', P .. 'back:' .. at, 0, last)) do show(id, true) end
  end
end
return { died, {}, now, rows }
