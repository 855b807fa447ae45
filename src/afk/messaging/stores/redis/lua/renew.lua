-- Renews held leases, if they are still held.
--
-- ARGV[4..] id, fence, ms; and so on
-- Answers   {died, topics, which of them, from 0, are not held any more}

go_on_when_full()
local lost = {}
for i = 4, #ARGV, 3 do
  local r = load(ARGV[i])
  local till = now + tonumber(ARGV[i + 2])
  local late = r and r.state == 'scheduled' -- the lease has ended, and nobody has had it since
  if not r or r.fence ~= tonumber(ARGV[i + 1]) or not (late or r.state == 'leased') then
    lost[#lost + 1] = (i - 4) / 3
  elseif late then
    withdraw(r)
    lease(r, till)
  elseif r.lease < till then -- else its holder has extended it further
    lease(r, till)
  end
end
return { died, tell(), lost }
