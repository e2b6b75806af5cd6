-- submit ID CLIENT WEIGHT BYTES ATTEMPT PRIORITY: a request joins its client's line. Its leases
-- are numbered from ATTEMPT + 1: who submits anew what this store has forgotten counts on.
-- Idempotent by ID; in a repeated call, a request that is not here any more is over.
-- Cost: O(log waiting); lifting is O(log clients).
speaks_of.submit = {request = 1, client = 2}
verbs.submit = function(id, client, weight, bytes, attempt, priority)
  if REPEATED or requests:get(id) then return end
  local request = new_request(id, client, SENDER, tonumber(weight), tonumber(bytes), tonumber(attempt), tonumber(priority))
  enqueue(clients:get(client), request)
end
