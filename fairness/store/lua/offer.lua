-- offer URL LIMIT ARRIVED VERSION LONGEST: a replica's window. LIMIT is how many grants it takes in
-- all until further notice; credits = LIMIT - granted, so that what is on its way counts. 0: none
-- (draining). ARRIVED (grants it has seen so far) restarts the count when this store has never
-- heard of the replica. VERSION grows with every new offer: a repeated or late one is ignored.
-- LONGEST is the longest prompt it can take, in tokens: no estimate is larger.
-- O(log replicas).
verbs.offer = function(url, limit, arrived, version, longest)
  local offer = offers:get(SENDER)
  limit, version = tonumber(limit), tonumber(version)
  if version <= offer.version then return end
  offer.url, offer.limit, offer.version = url, limit, version
  offer.granted = math.max(offer.granted, tonumber(arrived))
  pool.longest = tonumber(longest)
  set_credits(offer, limit - offer.granted)
end
