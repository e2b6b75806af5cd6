-- offer URL LIMIT ARRIVED VERSION LONGEST: a replica's window. LIMIT is how many grants it takes in
-- all until further notice; credits = LIMIT - granted, so that what is on its way counts. 0: none
-- (draining). ARRIVED (grants it has seen so far) restarts the count when this store has never
-- heard of the replica. VERSION grows with every new offer: a repeated or late one is ignored.
-- LONGEST is the longest prompt it can take, in tokens: no estimate is larger.
-- O(log replicas).
verbs.offer = function(url, limit, arrived, version, longest)
  local key = replica_key(SENDER)
  local known = call('HMGET', key, 'granted', 'version')
  if tonumber(version) <= tonumber(known[2] or '-1') then return end
  local granted = math.max(tonumber(known[1] or '0'), tonumber(arrived))
  call('HSET', key, 'url', url, 'limit', limit, 'granted', granted, 'version', version)
  pool.longest = tonumber(longest)
  set_credits(SENDER, tonumber(limit) - granted)
end
