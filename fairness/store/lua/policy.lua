-- policy NAME REASON: order by this policy from now on, everywhere: the store is the one place
-- that knows it. REASON names who wants it (one deployment of the application, one admin's
-- request) and is heeded once, so that a restarted router does not undo what came later.
local function current_policy() return call('HGET', POOL, 'policy') or 'vtc' end

verbs.policy = function(name, reason)
  if call('SADD', PREFIX .. 'reasons', reason) == 1 then call('HSET', POOL, 'policy', name) end
end
