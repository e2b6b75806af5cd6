-- offer URL LIMIT ARRIVED: a replica's window. LIMIT is how many grants it will have
-- taken in all before it is full (arrived and no longer waiting, plus its lookahead);
-- credits = LIMIT - granted. Cumulative, so a repeated or late offer changes nothing.
-- ARRIVED (grants seen so far) restarts the count when this store has never heard of
-- the replica. LIMIT 0 withdraws it (draining). O(log replicas).
verbs.offer = function(url, limit, arrived)
  local key = PREFIX .. 'replica:' .. SENDER
  local known = call('HMGET', key, 'limit', 'granted')
  local granted = tonumber(known[2] or arrived)
  limit = tonumber(limit)
  if limit > 0 then limit = math.max(limit, tonumber(known[1] or '0')) end
  call('HSET', key, 'url', url, 'limit', limit, 'granted', granted)
  set_credits(SENDER, limit - granted)
end
