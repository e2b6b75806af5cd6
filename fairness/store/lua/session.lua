-- What this store should know of the sender, and what it does know (contract.py: "A store that
-- forgets").
--   REPEATED  this very call, or a later one, was applied before: nothing new begins in it
--   LOST      the store does not know of a call that the sender has had a reply to; said until
--             the sender acknowledges a call in which it was told
-- Calls with number 0 are not counted.
local REPEATED, LOST = false, false
local calls_known -- what to remember of its calls
if NUMBER > 0 then
  local seen, lost = (call('HGET', CALLS, SENDER) or '0 0'):match('(%d+) (%d+)')
  seen, lost = tonumber(seen), tonumber(lost)
  REPEATED = NUMBER <= seen
  -- It has heard of all its settlements.
  if KIND == 'replica' and seen <= ACKED then plain_set('settled', SENDER):clear() end
  if seen < ACKED then lost = NUMBER elseif ACKED >= lost then lost = 0 end
  LOST = lost > 0
  calls_known = string.format('%d %d', math.max(seen, NUMBER), lost)
end
call('ZADD', SENDERS, NOW, SENDER)

local function write_session()
  if calls_known then call('HSET', CALLS, SENDER, calls_known) end
  calls_known = nil
end
