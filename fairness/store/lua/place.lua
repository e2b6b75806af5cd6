-- Which replica takes the next request? One function a placement, of the request about to be
-- leased: (replica, its credits), or nil when none has a credit. Whose turn it is was decided
-- before (order.lua); a placement that weighs prefixes kept in replicas' caches (D2LPM) would
-- stand here.
local placements = {}

-- The replica with most credits; ties go to the smaller name. O(log replicas).
placements.least_loaded = function(_request)
  local best = call('ZRANGE', LOAD, 0, 0, 'WITHSCORES')
  if best[1] then return best[1], -tonumber(best[2]) end
end
