-- Lets time pass, then leases the first ready messages of a mailbox.
--
-- ARGV[4] mailbox   ARGV[5] how many at most; 0 only lets time pass   ARGV[6] the lease in ms
-- ARGV[7] max_attempts; then the policy: [8] base ms, [9] factor, [10] cap ms, [11] 'full' | 'none'
-- ARGV[12] chance in [0, 1)
-- ARGV[13] who of this process waits: 0 nobody, 1 whoever asks, 2 others too
-- Answers  {died, topics, ms until something is due or -1, status, {id, fence, attempt, redrives,
--           body} of each}; status: 'ok' | 'unknown' | 'again': time is still passing

go_on_when_full()
local name, limit, waiters = ARGV[4], tonumber(ARGV[5]), ARGV[13]
local seen
if limit > 0 then
  local box = call('HMGET', P .. 'box:' .. name, 'capacity', 'seen')
  if not box[1] then return { {}, {}, -1, 'unknown', {} } end
  seen = tonumber(box[2]) or 0
end

if pass_time() then return { died, tell(), 0, 'again', {} } end
if limit > 0 and math.abs(now - seen) > 30000 then
  call('HSET', P .. 'box:' .. name, 'seen', now)
end

local function delay(attempt, index) -- `RetryPolicy.delay`, its chance spread over the batch
  local most = math.min(tonumber(ARGV[10]), tonumber(ARGV[8]) * tonumber(ARGV[9]) ^ math.min(attempt - 1, 64))
  if ARGV[11] == 'full' then most = most * ((tonumber(ARGV[12]) + index * 0.6180339887498949) % 1) end
  return math.floor(most + 0.5)
end

local till = now + tonumber(ARGV[6])
local taken, rows, mine = {}, {}, {}

-- What is not pending by its row is passed over: half of a script's writes can be there after two
-- crashes.
local function grant(id, body, attempt, fence, redrives, leased, ends)
  if mine[id] then return end -- it stands in a line twice: likewise
  mine[id] = true
  local last = attempt >= tonumber(ARGV[7])
  rows[#rows + 1] = {
    id = id, attempt = attempt, fence = fence, last = last and '1' or '0', ends = ends,
    backoff = last and 0 or delay(attempt, #taken), leased = leased,
  }
  taken[#taken + 1] = { id, fence, attempt, redrives, body or '' }
end

local function grant_again(id)
  local v = call('HMGET', P .. 'msg:' .. id, 'body', 'state', 'attempt', 'fence', 'redrives', 'leased', 'ends')
  if v[2] == 'pending' then
    grant(id, v[1], (tonumber(v[3]) or 0) + 1, (tonumber(v[4]) or 0) + 1, tonumber(v[5]) or 0,
      v[6] or TEXT[now], v[7] and tonumber(v[7]))
  end
end

local function grant_fresh(id)
  local v = call('HMGET', P .. 'msg:' .. id, 'body', 'state', 'attempt')
  if v[3] then
    grant_again(id)
  elseif v[2] == 'pending' then
    grant(id, v[1], 1, 1, 0, TEXT[now])
  end
end

local function place(id)
  return tonumber(call('HGET', P .. 'msg:' .. id, 'place')) or 0
end

local lines = {} -- what was taken from: how many fresh ones, and how many that came back

local function take_from(rank)
  local mail, back = P .. 'mail:' .. name .. ':' .. PRIORITY[rank], P .. 'back:' .. name .. ':' .. PRIORITY[rank]
  local fresh, again = 0, 0
  local both = call('EXISTS', back) == 1
  while #taken < limit do
    local id, before
    if both then id, before = unpack(call('ZRANGE', back, again, again, 'WITHSCORES')) end
    local ids = call('LRANGE', mail, fresh, fresh + (id and 1 or limit - #taken) - 1)
    if id and not (ids[1] and place(ids[1]) < tonumber(before)) then
      grant_again(id)
      again = again + 1
    elseif ids[1] then
      for _, each in ipairs(ids) do grant_fresh(each) end
      fresh = fresh + #ids
    else
      break
    end
    both = id
  end
  lines[#lines + 1] = { mail, fresh, back, again }
end

local function any(first, last) -- whether something of these ranks is ready
  local keys = {}
  for rank = first, last do
    keys[#keys + 1] = P .. 'mail:' .. name .. ':' .. PRIORITY[rank]
    keys[#keys + 1] = P .. 'back:' .. name .. ':' .. PRIORITY[rank]
  end
  return call('EXISTS', unpack(keys)) > 0
end

if limit > 0 and any(0, 1) then
  take_from(0)
  take_from(1)
end
take_from(2)
take_from(3)
if #rows > 0 then
  lend(rows, till)
  for _, r in ipairs(rows) do
    write(r, 'state', 'leased', 'lease', TEXT[till], 'attempt', TEXT[r.attempt],
      'fence', TEXT[r.fence], 'last', r.last, 'backoff', TEXT[r.backoff], 'leased', r.leased)
  end
end
for _, line in ipairs(lines) do -- last: half of this script leaves them where they are, or comes back
  local mail, fresh, back, again = unpack(line)
  if fresh > 0 then call('LPOP', mail, fresh) end
  if again > 0 then call('ZREMRANGEBYRANK', back, 0, again - 1) end
end

local topic, own, due = 'mail:' .. name, nil, -1
if waiters == '2' and #taken > 0 and any(0, 3) then
  own = topic -- the next of those who wait here is to look
elseif waiters == '2' or (waiters == '1' and #taken == 0) then
  hear(topic)
end
if #taken == 0 then
  forget(12)
  if waiters ~= '0' then
    local before = tonumber(call('ZSCORE', P .. 'waiting', ME)) or 0
    if math.abs(now - before) > 20000 then
      call('ZADD', P .. 'waiting', now, ME)
      call('PEXPIRE', P .. 'waiting', HEARING)
      call('ZREMRANGEBYSCORE', P .. 'waiting', '-inf', now - HEARING)
    end
  end
  if alarm then due = math.max(0, alarm - now) end
end
local heard = tell()
if own then heard[#heard + 1] = own end
return { died, heard, due, 'ok', taken }
