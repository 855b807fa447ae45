-- Lets time pass, then leases the first ready messages of a mailbox.
--
-- ARGV[4] mailbox   ARGV[5] how many at most; 0 only lets time pass   ARGV[6] the lease in ms
-- ARGV[7] max_attempts; then the policy: [8] base ms, [9] factor, [10] cap ms, [11] 'full' | 'none'
-- ARGV[12] chance in [0, 1)
-- ARGV[13] who of this process waits: 0 nobody, 1 whoever asks, 2 others too
-- Answers  {died, topics, ms until something is due or -1, status, {id, fence, attempt, redrives,
--           body} of each}; status: 'ok' | 'unknown' | 'again': time is still passing

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
  local r = load(id)
  if not r then return end
  local body, redrives, leased =
    unpack(call('HMGET', P .. 'msg:' .. id, 'body', 'redrives', 'leased'))
  local attempt, fence = r.attempt + 1, r.fence + 1
  local last = attempt >= tonumber(ARGV[7])
  r.backoff = last and 0 or delay(attempt, #taken)
  write(r, 'attempt', attempt, 'fence', fence, 'last', last and 1 or 0, 'backoff', r.backoff,
    'leased', leased or now)
  r.state = 'taken' -- out of its line already
  lease(r, now + tonumber(ARGV[6]))
  taken[#taken + 1] = { id, fence, attempt, tonumber(redrives) or 0, body or '' }
end

local function take_from(priority)
  local mail, back = P .. 'mail:' .. name .. ':' .. priority, P .. 'back:' .. name .. ':' .. priority
  while #taken < limit do
    local fresh, old = call('LINDEX', mail, 0), call('ZRANGE', back, 0, 0, 'WITHSCORES')
    local id = old[1]
    if fresh and (not id or tonumber(call('HGET', P .. 'msg:' .. fresh, 'place') or 0) < tonumber(old[2])) then
      id = fresh
      call('LPOP', mail)
    elseif id then
      call('ZREM', back, id)
    else
      return
    end
    grant(id)
  end
end

local function waiting() -- whether more is ready
  for rank = 0, 3 do
    local at = name .. ':' .. PRIORITY[rank]
    if call('EXISTS', P .. 'mail:' .. at, P .. 'back:' .. at) > 0 then return true end
  end
  return false
end

for rank = 0, 3 do take_from(PRIORITY[rank]) end
forget(8 + 4 * limit)

local topic, own, due = 'mail:' .. name, nil, -1
if waiters == '2' and #taken > 0 and waiting() then
  own = topic -- the next of those who wait here is to look
elseif waiters == '2' or (waiters == '1' and #taken == 0) then
  hear(topic)
end
if #taken == 0 then
  for _, set in ipairs({ 'due', 'expire' }) do
    local at = tonumber(call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')[2])
    if at then soon(at) end
  end
  if waiters ~= '0' then
    local before = tonumber(call('ZSCORE', P .. 'waiting', ME)) or 0
    if math.abs(now - before) > 20000 then
      call('ZADD', P .. 'waiting', now, ME)
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
