-- Turns, each all or nothing: the outcome of a leased delivery and what is sent with it.
--
-- ARGV[4]   the turns, as MessagePack: {id or false, fence, outcome, roster or false, sends}
--           outcome: false | {'done'} | {'again', delay ms, error, counts} |
--                    {'dead', reason, error} | {'extend', ms, whether it is held}
--           send: {id, mailbox, sender, rank, key or false, compare, delay ms, ttl ms or false,
--                  thread, chain or false, awaited, answers or false, alone, dead or false,
--                  retention ms, history ms, history_max, digest, heard};  dead: {reason, error};
--                  heard: the asking process waits for its fate
-- ARGV[5..] the bodies of all sends, in order
-- Answers   {died, topics, verdict of each turn}
--           verdict: {0, id, 'new' | 'duplicate' | 'ignored', id, ...} |
--                    {1, kind, mailbox, id, limit} | {2} to be asked again: time is still passing

local body = 4
if #ARGV == 4 then go_on_when_full() end -- outcomes alone

local function known(plan, s) -- what is there under the key or the id; or nil
  local id, first = s.id, nil
  if s.key then
    id = plan.keyed[s.name] or call('GET', s.name)
    if id then first = plan.sends[id] or 'stored' else id = s.id end
  end
  if not first then first = plan.sends[id] end
  local box, sender, key, digest
  if first and first ~= 'stored' then
    box, sender, key, digest = first.mailbox, first.sender, first.key, first.digest
  else
    local gone
    box, sender, key, digest, gone =
      unpack(call('HMGET', P .. 'msg:' .. id, 'mailbox', 'sender', 'key', 'digest', 'gone'))
    if not box or over(id, gone) then return nil end
  end
  local same = box == s.mailbox and sender == s.sender and key == s.key
  if not same or (s.compare and digest ~= s.digest) then
    return { 1, 'conflict', s.mailbox, id, 0 }
  end
  return nil, { id, 'duplicate' }
end

local function no_room(plan, s) -- why it cannot be mail; or nil
  local box = call('HMGET', P .. 'box:' .. s.mailbox, 'capacity', 'max_bytes', 'ordered')
  if not box[1] then return { 1, 'unknown', s.mailbox, s.id, 0 } end
  s.ordered = box[3] == '1'
  local capacity, most = tonumber(box[1]), tonumber(box[2])
  if #s.body > most then return { 1, 'too_large', s.mailbox, s.id, most } end
  local room = s.rank == 0 and capacity or capacity - math.floor(capacity / 10)
  local open = P .. 'open:' .. s.mailbox
  local added = plan.added[s.mailbox] or 0
  if call('ZCARD', open) + added >= room then
    local more = pass_time(plan.held and plan.held.id)
    if call('ZCARD', open) + added >= room then
      return more and { 2 } or { 1, 'full', s.mailbox, s.id, capacity }
    end
  end
  plan.added[s.mailbox] = added + 1
  return nil
end

local function add(plan, s) -- plan one send; a refusal, or nil and what it will be accepted as
  local refusal, there = known(plan, s)
  if refusal or there then return refusal, there end
  local kind = s.dead and 'dead' or 'mail'
  if s.answers then
    local gone = call('HGET', P .. 'msg:' .. s.answers, 'gone')
    local request = not over(s.answers, gone) and load(s.answers)
    if request and request.awaited then
      kind = 'answer'
      local late = request.answer or request.state == 'cancelled' or plan.answered[s.answers]
      if late then return nil, { s.id, 'ignored' } end
      plan.answered[s.answers] = true
    elseif not request and s.awaited then
      return nil, { s.id, 'ignored' }
    end
  end
  if kind == 'mail' then
    local why = no_room(plan, s)
    if why and (why[1] == 2 or not s.alone) then return why end
    if why then -- a copy of a broadcast, or an answer: it may fail alone
      kind = 'dead'
      s.dead = { not s.answers and why[2] == 'full' and 'full' or 'undeliverable', why[2] }
    end
  end
  s.kind = kind
  plan.sends[s.id] = s
  if s.key then plan.keyed[s.name] = s.id end
  plan.steps[#plan.steps + 1] = s
  return nil, { s.id, 'new' }
end

local function settle(r, outcome)
  local kind = outcome[1]
  if kind == 'done' then
    finish(r, 'done', nil, r.error)
  elseif kind == 'dead' then
    finish(r, 'dead', outcome[2], outcome[3] ~= '' and outcome[3] or r.error)
  elseif kind == 'extend' then
    local till = now + outcome[2]
    -- What is held stays held: an earlier end would be put off by the next renewal.
    if r.state ~= 'leased' then withdraw(r) end
    lease(r, outcome[3] and math.max(till, r.lease) or till)
  else
    r.fence = r.fence + 1
    if not outcome[4] then r.attempt = r.attempt - 1 end
    if outcome[3] ~= '' then r.error = outcome[3] end
    line_up(r, now + outcome[2])
  end
end

local function admit(r) -- an open message: its line, its thread, its time
  call('ZADD', P .. 'open:' .. r.mailbox, r.place, r.id)
  if r.thread then call('ZADD', thread(r), r.place, r.id) end
  if r.ends then
    call('ZADD', P .. 'expire', r.ends, r.id)
    soon(r.ends)
  end
  if r.due > now then
    r.state = 'scheduled'
    call('ZADD', P .. 'due', r.due, r.id)
    soon(r.due)
  elseif r.thread or r.ends then
    ready(r)
  else -- what leaves the line only when it is claimed
    r.state = 'pending'
    call('RPUSH', line(r, 'mail'), r.id)
    topics['mail:' .. r.mailbox] = true
  end
end

local sent, place = 0, nil -- how many sends there are, and the place of the last one that was stored

local function next_place() -- drawn for all of them at once
  place = place or call('HINCRBY', META, 'accepted', sent) - sent
  place = place + 1
  return place
end

local function store(s)
  local place = next_place()
  local r = {
    id = s.id, mailbox = s.mailbox, rank = s.rank, place = place, fence = 0,
    thread = s.ordered and s.thread ~= '' and s.thread, ends = s.ttl and now + s.ttl,
    due = s.delay > 0 and now + s.delay or 0, state = s.kind == 'answer' and 'done' or s.kind,
    keep = s.history .. ' ' .. s.retention .. ' ' .. s.most,
    kept = s.key or s.awaited or s.kind == 'answer',
  }
  local request = s.kind == 'answer' and load(s.answers)
  if request then -- as long as who asked counts on it
    local _, retention = stamped(request)
    s.retention = math.max(s.retention, retention)
    r.keep = s.history .. ' ' .. s.retention .. ' ' .. s.most
  end
  if s.kind == 'mail' then admit(r) end
  if s.key then call('SET', s.name, s.id) end -- before the row: without one it leads to nothing
  local fields = {
    'body', s.body, 'mailbox', s.mailbox, 'sender', s.sender, 'place', place, 'state', r.state,
    'accepted', now, 'digest', s.digest, 'keep', r.keep,
  }
  local function set(name, value)
    if value then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  set('rank', s.rank ~= 2 and s.rank)
  set('key', s.key)
  set('chain', s.chain)
  set('thread', s.thread ~= '' and s.thread)
  set('threaded', r.thread and 1)
  set('due', r.due > 0 and r.due)
  set('ttl', s.ttl)
  set('ends', r.ends)
  set('kept', r.kept and 1)
  set('awaited', s.awaited and not request and 1)
  if s.heard then hear('fate:' .. s.id) end
  if s.kind == 'mail' then
    write(r, unpack(fields))
  else
    set('settled', now)
    set('reason', s.kind == 'dead' and s.dead[1])
    set('error', s.kind == 'dead' and s.dead[2])
    ended_as(r, r.state, s.dead and s.dead[1], request, fields)
  end
  call('ZADD', P .. 'accepted', place, s.id)
  if s.chain then call('ZADD', P .. 'chain:' .. s.chain, place, s.id) end
  if request then -- it must be found for as long as its result is kept, as a dead letter whole
    local till, gone = now + s.retention, call('HGET', P .. 'msg:' .. request.id, 'gone')
    write(request, 'answer', s.id)
    if gone and tonumber(gone) < till then
      write(request, 'gone', till)
      if request.state == 'dead' then
        write(request, 'fades', till)
        call('ZADD', P .. 'fade', till, request.id)
      end
    end
    topics['fate:' .. request.id] = true
  end
end

local NAMES = {
  'id', 'mailbox', 'sender', 'rank', 'key', 'compare', 'delay', 'ttl', 'thread', 'chain', 'awaited',
  'answers', 'alone', 'dead', 'retention', 'history', 'most', 'digest', 'heard',
}

local function read(values)
  local s = {}
  for i, name in ipairs(NAMES) do s[name] = values[i] end
  body = body + 1
  s.body = ARGV[body]
  if s.key then s.name = P .. 'key:' .. s.mailbox .. '|' .. s.sender .. '|' .. s.key end
  return s
end

local function take(turn)
  local id, fence, outcome, version, sends = unpack(turn)
  for i, values in ipairs(sends) do sends[i] = read(values) end
  if version and version ~= roster then return { 1, 'roster', '', '', 0 } end
  local plan = { sends = {}, keyed = {}, answered = {}, added = {}, steps = {} }
  if id then
    local r = load(id)
    if not r or r.fence ~= fence or final(r) then return { 1, 'lease_lost', '', '', 0 } end
    plan.held = r
    -- the room that its end makes
    local kind = outcome and outcome[1]
    local over = kind == 'again' and r.ends and r.ends <= now
    if over or kind == 'done' or kind == 'dead' then plan.added[r.mailbox] = -1 end
  end
  local verdict = { 0 }
  for _, s in ipairs(sends) do
    local refusal, accepted = add(plan, s)
    if refusal then return refusal end
    verdict[#verdict + 1] = accepted[1]
    verdict[#verdict + 1] = accepted[2]
  end
  if plan.held and outcome then settle(plan.held, outcome) end
  for _, s in ipairs(plan.steps) do store(s) end
  return verdict
end

local turns = cmsgpack.unpack(ARGV[4])
local verdicts = {}
for _, turn in ipairs(turns) do sent = sent + #turn[5] end
for i, turn in ipairs(turns) do verdicts[i] = take(turn) end
forget(8 + 4 * #turns)
return { died, tell(), verdicts }
