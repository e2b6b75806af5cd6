-- submit ID CLIENT WEIGHT BYTES ATTEMPT PRIORITY [WEIGHT GROUP]..: a request joins its client's line.
-- GROUP: the groups that the client stands in now, the outermost first. Its leases
-- are numbered from ATTEMPT + 1: who submits anew what this store has forgotten counts on.
-- Idempotent by ID; in a repeated call, a request that is not here any more is over.
-- Cost: O(log waiting); lifting is O(log clients).
speaks_of.submit = {request = 1, client = 2}
speaks_of.submit_limited = {request = 2, client = 3, terms = true} -- these two: limits.lua
speaks_of.ended = {request = 1, ends = true}
verbs.submit = function(id, name, weight, bytes, attempt, priority, ...)
  if REPEATED or requests:get(id) then return end
  local client = clients:get(name)
  join_groups(client, ...)
  local request = new_request(id, name, SENDER, tonumber(weight), tonumber(bytes), tonumber(attempt), tonumber(priority))
  stand_in_line(client, request, true)
end

-- price ID PRICE: the service of this request, just submitted or resynced, is so many times what `cost` says.
-- What is said of it again changes nothing. O(1).
speaks_of.price = {request = 1}
verbs.price = function(id, price)
  local request = requests:get(id)
  price = tonumber(price)
  if not request or request.price == price then return end
  request.charged = request.charged * price / request.price -- what a resync takes to be charged
  request.price, request.changed = price, true
end
