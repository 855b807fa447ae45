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

local taken = {}

local function grant(id)
  local v = call('HMGET', P .. 'msg:' .. id, 'body', 'redrives', 'leased', 'attempt', 'fence', 'ends', 'state')
  if v[7] ~= 'pending' then return end -- half of a script's writes can be there after two crashes
  local r = { id = id, mailbox = name, ends = tonumber(v[6]) }
  local attempt, fence = (tonumber(v[4]) or 0) + 1, (tonumber(v[5]) or 0) + 1
  local last = attempt >= tonumber(ARGV[7])
  r.backoff = last and 0 or delay(attempt, #taken)
  lease(r, now + tonumber(ARGV[6]), 'attempt', attempt, 'fence', fence, 'last', last and 1 or 0,
    'backoff', r.backoff, 'leased', v[3] or now)
  taken[#taken + 1] = { id, fence, attempt, tonumber(v[2]) or 0, v[1] or '' }
end

local function place(id)
  return tonumber(call('HGET', P .. 'msg:' .. id, 'place')) or 0
end

local function take_from(rank)
  local mail, back = P .. 'mail:' .. name .. ':' .. PRIORITY[rank], P .. 'back:' .. name .. ':' .. PRIORITY[rank]
  while #taken < limit do
    local id, before = unpack(call('ZRANGE', back, 0, 0, 'WITHSCORES'))
    local fresh = id and call('LINDEX', mail, 0)
    if id and not (fresh and place(fresh) < tonumber(before)) then
      call('ZREM', back, id)
    else
      id = call('LPOP', mail)
      if not id then return end
    end
    grant(id)
  end
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

local topic, own, due = 'mail:' .. name, nil, -1
if waiters == '2' and #taken > 0 and any(0, 3) then
  own = topic -- the next of those who wait here is to look
elseif waiters == '2' or (waiters == '1' and #taken == 0) then
  hear(topic)
end
if #taken == 0 then
  forget(12)
  for _, set in ipairs({ 'due', 'expire' }) do
    local at = tonumber(call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')[2])
    if at then soon(at) end
  end
  if waiters ~= '0' then
    local before = tonumber(call('ZSCORE', P .. 'waiting', ME)) or 0
    if math.abs(now - before) > 20000 then
      call('ZADD', P .. 'waiting', now, ME)
      call('PEXPIRE', P .. 'waiting', HEARING)
      call('ZREMRANGEBYSCORE', P .. 'waiting', '-inf', now - HEARING)
    end
  end
  due = soonest or due
  if alarm and alarm > now and (due == -1 or alarm < due) then due = alarm end
  if due ~= -1 then due = math.max(0, due - now) end
end
local heard = tell()
if own then heard[#heard + 1] = own end
return { died, heard, due, 'ok', taken }
