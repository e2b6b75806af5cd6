-- pool: the pool as it is: policy, its version, V (as it would be at a lift now), then replica,
-- url, takes requests (or drains) of each live replica. O(replicas).
verbs.pool = function()
  local lowest = tonumber(call('ZRANGE', BACKLOGGED, 0, 0, 'WITHSCORES')[2]) or 0
  reply.pool = {pool.policy, text(pool.policy_version), text(math.max(pool.virtual_time, lowest))}
  for _, replica in ipairs(call('ZRANGEBYSCORE', REPLICAS, NOW - SENDER_TTL, '+inf')) do
    local offer = call('HMGET', replica_key(replica), 'url', 'limit')
    if offer[1] then
      local taking = tonumber(offer[2]) > 0 and '1' or '0'
      for _, field in ipairs({replica, offer[1], taking}) do reply.pool[#reply.pool + 1] = field end
    end
  end
end
