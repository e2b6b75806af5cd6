-- Which replica takes the next request? One function a placement, of the request about to be
-- leased: the replica's offer. Asked only while some replica has a credit. Whose turn it is was
-- decided before (order.lua); a placement that weighs prefixes kept in replicas' caches (D2LPM)
-- would stand here.
local placements = {}

-- The replica with most credits; ties go to the smaller name. O(log replicas).
placements.least_loaded = function(_request)
  return offers:get((loads:lowest()))
end
