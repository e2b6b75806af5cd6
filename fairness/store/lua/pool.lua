-- pool: the pool as it is: policy, its version, V (as it would be at a lift now), how many requests
-- wait, then replica, url, takes requests (or drains) of each live replica. O(replicas).
verbs.pool = function()
  reply.pool = {pool.policy, text(pool.policy_version), text(level(pool)), text(arrivals:size())}
  local live = call('ZRANGEBYSCORE', REPLICAS, NOW - SENDER_TTL, '+inf')
  for _, replica in ipairs(live) do offers:want(replica) end
  offers:fetch()
  pool.servers = 0
  for _, replica in ipairs(live) do
    local offer = offers:get(replica)
    if offer.url then
      pool.servers = pool.servers + 1
      local taking = offer.limit > 0 and '1' or '0'
      for _, field in ipairs({replica, offer.url, taking}) do reply.pool[#reply.pool + 1] = field end
    end
  end
end
