-- submit ID CLIENT WEIGHT BYTES ATTEMPT: a request joins its client's line. Its leases are
-- numbered from ATTEMPT + 1: who submits anew what this store has forgotten counts on.
-- Idempotent by ID; in a repeated call, a request that is not here any more is over.
-- Cost: O(log waiting); lifting is O(log clients).
speaks_of.submit = {request = 1, client = 2}
verbs.submit = function(id, client, weight, bytes, attempt)
  if REPEATED or requests:get(id) then return end
  enqueue(clients:get(client), new_request(id, client, SENDER, tonumber(weight), tonumber(bytes), tonumber(attempt)))
end
