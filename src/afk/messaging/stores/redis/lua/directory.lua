-- Mailboxes come and go.
--
-- ARGV[4] 'bind'    [5] name, [6] ordered 0 | 1, [7] capacity, [8] max_bytes
--         'unbind'  [5] name, [6] the place to go on from; -1 at the start
--         'agents'  [5] the version that is known
-- Answers {died, topics, ...}: bind, the mailbox as it was created {ordered, capacity, max_bytes};
--         unbind, the place to go on from, or -1 at the end; agents, the version, and, if it is
--         another than the known one, {name, ordered, capacity, max_bytes} of each

local function box(name)
  return call('HMGET', P .. 'box:' .. name, 'ordered', 'capacity', 'max_bytes')
end

local function bind(name)
  if call('SISMEMBER', P .. 'agents', name) == 0 then
    call('SADD', P .. 'agents', name)
    call('HSET', P .. 'box:' .. name, 'ordered', ARGV[6], 'capacity', ARGV[7], 'max_bytes', ARGV[8])
    call('HINCRBY', META, 'roster', 1)
  end
  return box(name)
end

local function unbind(name, after)
  if after == -1 then
    if call('SREM', P .. 'agents', name) == 0 then return -1 end
    call('DEL', P .. 'box:' .. name)
    call('HINCRBY', META, 'roster', 1)
  elseif call('SISMEMBER', P .. 'agents', name) == 1 then
    return -1 -- registered anew meanwhile
  end
  local all = P .. 'open:' .. name
  local open = call('ZRANGEBYSCORE', all, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, SLICE)
  for i = 1, #open, 2 do
    local r = load(open[i])
    after = open[i + 1]
    if not r or final(r) then -- half of a script's writes, after two crashes
      call('ZREM', all, open[i])
      call('ZREM', P .. 'later:' .. name, open[i])
    elseif waits(r) then
      finish(r, 'dead', 'unregistered')
    end
  end
  return #open == 2 * SLICE and tonumber(after) or -1
end

local function agents(version)
  local all = {}
  if version ~= roster then
    for i, name in ipairs(call('SMEMBERS', P .. 'agents')) do all[i] = { name, unpack(box(name)) } end
  end
  return all
end

local verb = ARGV[4]
if verb == 'bind' then
  return { died, {}, bind(ARGV[5]) }
elseif verb == 'unbind' then
  local next = unbind(ARGV[5], tonumber(ARGV[6]))
  return { died, tell(), next }
end
return { died, {}, roster, agents(tonumber(ARGV[5])) }
