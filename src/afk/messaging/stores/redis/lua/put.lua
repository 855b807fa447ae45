-- Turns, each all or nothing: the outcome of a leased delivery and what is sent with it.
--
-- ARGV[4]   the turns, as MessagePack, one value after another (a table that grows costs more than
--           what is in it): id or false, fence, outcome, roster or false, how many sends, the sends
--           outcome: four values, false where it has less: false | 'done' |
--                    'again', delay ms, error, counts | 'dead', reason, error |
--                    'extend', ms, false, whether it is held
--           send: id, mailbox, sender, rank, key or false, compare, delay ms, ttl ms or false,
--                 thread, chain or false, awaited, answers or false, alone, reason or false, error,
--                 retention ms, history ms, history_max, digest, heard;  reason, error: it is dead;
--                 heard: the asking process waits for its fate
-- ARGV[5..] the bodies of all sends, in order
-- Answers   {died, topics, verdict of each turn}
--           verdict: {0, id, 'new' | 'duplicate' | 'ignored', id, ...} |
--                    {1, kind, mailbox, id, limit} | {2} to be asked again: time is still passing

local at, body = 0, 4 -- what was read of ARGV[4], and the last body
if #ARGV == 4 then go_on_when_full() end -- outcomes alone

local boxes = {} -- what was read of them

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
    local row, gone = P .. 'msg:' .. id, nil
    if call('EXISTS', row) == 0 then return nil end
    box, sender, key, digest, gone =
      unpack(call('HMGET', row, 'mailbox', 'sender', 'key', 'digest', 'gone'))
    if not box or over(id, gone) then return nil end
  end
  local same = box == s.mailbox and sender == s.sender and key == s.key
  if not same or (s.compare and digest ~= s.digest) then
    return { 1, 'conflict', s.mailbox, id, 0 }
  end
  return nil, id, 'duplicate'
end

local function no_room(plan, s) -- why it cannot be mail; or nil
  local box = boxes[s.mailbox]
    or call('HMGET', P .. 'box:' .. s.mailbox, 'capacity', 'max_bytes', 'ordered')
  boxes[s.mailbox] = box
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

local function add(plan, s) -- plan one send; a refusal, or nil, its id and what it is accepted as
  local refusal, there, how = known(plan, s)
  if refusal or there then return refusal, there, how end
  local kind = s.reason and 'dead' or 'mail'
  if s.answers then
    local gone = call('HGET', P .. 'msg:' .. s.answers, 'gone')
    local request = not over(s.answers, gone) and load(s.answers)
    if request and request.awaited then
      kind = 'answer'
      local late = request.answer or request.state == 'cancelled' or plan.answered[s.answers]
      if late then return nil, s.id, 'ignored' end
      plan.answered[s.answers] = true
    elseif not request and s.awaited then
      return nil, s.id, 'ignored'
    end
  end
  if kind == 'mail' then
    local why = no_room(plan, s)
    if why and (why[1] == 2 or not s.alone) then return why end
    if why then -- a copy of a broadcast, or an answer: it may fail alone
      kind = 'dead'
      s.reason = not s.answers and why[2] == 'full' and 'full' or 'undeliverable'
      s.error = why[2]
    end
  end
  s.kind = kind
  plan.sends[s.id] = s
  if s.key then plan.keyed[s.name] = s.id end
  plan.steps[#plan.steps + 1] = s
  return nil, s.id, 'new'
end

local function settle(r, kind, value, err, flag)
  if kind == 'done' then
    finish(r, 'done')
  elseif kind == 'dead' then
    finish(r, 'dead', value, err ~= '' and err)
  elseif kind == 'extend' then
    local till = now + value
    -- What is held stays held: an earlier end would be put off by the next renewal.
    if r.state ~= 'leased' then withdraw(r) end
    lease(r, flag and math.max(till, r.lease) or till)
  else
    r.fence = r.fence + 1
    if not flag then write(r, 'attempt', r.attempt - 1) end
    if err ~= '' then write(r, 'error', err) end
    line_up(r, now + value)
  end
end

local function admit(r) -- an open message: its line, its thread, its time
  call('ZADD', P .. 'open:' .. r.mailbox, TEXT[r.place], r.id)
  if r.thread then call('ZADD', thread(r), r.place, r.id) end
  if r.ends then expire(r) end
  if r.due > now then
    schedule(r, r.due)
  elseif r.thread or r.ends then
    ready(r)
  else -- what leaves the line only when it is claimed
    r.state = 'pending'
    call('RPUSH', line(r, 'mail'), r.id)
    topics['mail:' .. r.mailbox] = true
  end
end

local sent, place = #ARGV - 4, nil -- how many sends there are, and the place of the last one stored

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
    kept = s.key or s.awaited or s.kind == 'answer', heard = s.heard,
  }
  local request = s.kind == 'answer' and load(s.answers)
  if request then -- as long as who asked counts on it
    local _, retention = stamped(request.keep)
    s.retention = math.max(s.retention, retention)
  end
  r.keep = TEXT[s.history] .. ' ' .. TEXT[s.retention] .. ' ' .. TEXT[s.most]
  if s.kind == 'mail' then admit(r) end
  if s.key then call('SET', s.name, s.id) end -- before the row: without one it leads to nothing
  local fields = {
    'body', s.body, 'mailbox', s.mailbox, 'sender', s.sender, 'place', TEXT[place],
    'state', r.state, 'accepted', TEXT[now], 'digest', s.digest, 'keep', r.keep,
  }
  if s.rank ~= 2 then set(fields, 'rank', s.rank) end
  if s.key then set(fields, 'key', s.key) end
  if s.chain then set(fields, 'chain', s.chain) end
  if s.thread ~= '' then set(fields, 'thread', s.thread) end
  if r.thread then set(fields, 'threaded', r.thread) end
  if r.due > 0 then set(fields, 'due', TEXT[r.due]) end
  if s.ttl then set(fields, 'ttl', s.ttl) end
  if r.ends then set(fields, 'ends', TEXT[r.ends]) end
  if r.kept then set(fields, 'kept', 1) end
  if s.awaited and not request then set(fields, 'awaited', 1) end
  if s.heard then
    hear('fate:' .. s.id)
    set(fields, 'heard', 1)
  end
  if s.kind == 'mail' then
    write(r, unpack(fields))
  else
    set(fields, 'settled', TEXT[now])
    if s.kind == 'dead' then
      set(fields, 'reason', s.reason)
      set(fields, 'error', s.error)
    end
    ended_as(r, r.state, s.reason, request, fields)
  end
  call('ZADD', P .. 'accepted', TEXT[place], s.id)
  if s.chain then call('ZADD', P .. 'chain:' .. s.chain, TEXT[place], s.id) end
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
    if request.heard then topics['fate:' .. request.id] = true end
  end
end

local function read() -- the next send
  local next, id, mailbox, sender, rank, key, compare, delay, ttl, thread, chain, awaited, answers,
    alone, reason, err, retention, history, most, digest, heard =
    cmsgpack.unpack_limit(ARGV[4], 20, at)
  at, body = next, body + 1
  return {
    id = id, mailbox = mailbox, sender = sender, rank = rank, key = key, compare = compare,
    delay = delay, ttl = ttl, thread = thread, chain = chain, awaited = awaited, answers = answers,
    alone = alone, reason = reason, error = err, retention = retention, history = history,
    most = most, digest = digest, heard = heard, body = ARGV[body],
    name = key and P .. 'key:' .. mailbox .. '|' .. sender .. '|' .. key, kind = false, ordered = false,
  }
end

local function take() -- the next turn
  local next, id, fence, kind, value, err, flag, version, count =
    cmsgpack.unpack_limit(ARGV[4], 8, at)
  at = next
  local sends = {}
  for i = 1, count do sends[i] = read() end
  if version and version ~= roster then return { 1, 'roster', '', '', 0 } end
  local held = id and begin(id)
  if id and (not held or held.fence ~= fence or final(held)) then
    return { 1, 'lease_lost', '', '', 0 }
  end
  if held and (kind ~= 'done' or held.state ~= 'leased') then complete(held) end
  local verdict, steps = { 0 }, {}
  if count > 0 then
    local plan = { sends = {}, keyed = {}, answered = {}, added = {}, steps = steps, held = held }
    -- the room that its end makes
    local over = kind == 'again' and held.ends and held.ends <= now
    if over or kind == 'done' or kind == 'dead' then plan.added[held.mailbox] = -1 end
    for _, s in ipairs(sends) do
      local refusal, accepted, how = add(plan, s)
      if refusal then return refusal end
      verdict[#verdict + 1] = accepted
      verdict[#verdict + 1] = how
    end
  end
  if kind then settle(held, kind, value, err, flag) end
  for _, s in ipairs(steps) do store(s) end
  return verdict
end

local verdicts = {}
while at >= 0 do verdicts[#verdicts + 1] = take() end
-- Whatever ends lets go of old ones, and of what is only sent every eighth.
if more_ended or (place and place % 8 < sent) then forget(8 + 4 * #verdicts) end
return { died, tell(), verdicts }
