-- Counts mailboxes, by the sizes of their lines.
--
-- ARGV[4..] names
-- Answers   {died, topics, now, {name, seen or false, open, scheduled, dead, when the oldest that waits
--           was accepted or false, pending urgent, high, normal, low} of each that is registered}

local function older(oldest, id)
  local accepted = id and tonumber(call('HGET', P .. 'msg:' .. id, 'accepted'))
  return accepted and (not oldest or accepted < oldest) and accepted or oldest
end

local function count(name)
  local seen, there = unpack(call('HMGET', P .. 'box:' .. name, 'seen', 'capacity'))
  if not there then return nil end
  local pending, oldest = {}, nil
  for rank = 0, 3 do
    local at = ':' .. name .. ':' .. PRIORITY[rank]
    oldest = older(oldest, call('LINDEX', P .. 'mail' .. at, 0))
    pending[rank] = call('LLEN', P .. 'mail' .. at)
    for _, kind in ipairs({ 'back', 'behind' }) do
      oldest = older(oldest, call('ZRANGE', P .. kind .. at, 0, 0)[1])
      pending[rank] = pending[rank] + call('ZCARD', P .. kind .. at)
    end
  end
  return {
    name, seen, call('ZCARD', P .. 'open:' .. name),
    call('ZCARD', P .. 'later:' .. name), call('ZCARD', P .. 'dead:' .. name),
    oldest or false, pending[0], pending[1], pending[2], pending[3],
  }
end

local all = {}
for i = 4, #ARGV do all[#all + 1] = count(ARGV[i]) end
return { died, {}, now, all }
