-- policy NAME REASON: order by this policy from now on, everywhere: the store is the one place
-- that knows it. REASON names who wants it (one deployment of the application, one admin's
-- request) and is heeded once, so that a restarted router does not undo what came later.
verbs.policy = function(name, reason)
  local reasons = plain_set('reasons')
  if reasons:has(reason) then return end
  reasons:add(reason, true)
  if name == 'shadow' and pool.policy ~= name then begin_shadow() end
  pool.policy, pool.policy_version = name, pool.policy_version + 1
end
