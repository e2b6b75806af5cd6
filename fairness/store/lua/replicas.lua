-- replicas: the policy, and who lives: replica, url, does it take requests (or drain)? O(replicas).
verbs.replicas = function()
  reply.replicas = {current_policy()}
  for _, replica in ipairs(call('ZRANGEBYSCORE', REPLICAS, NOW - SENDER_TTL, '+inf')) do
    local offer = call('HMGET', PREFIX .. 'replica:' .. replica, 'url', 'limit')
    if offer[1] then
      local taking = tonumber(offer[2]) > 0 and '1' or '0'
      for _, field in ipairs({replica, offer[1], taking}) do reply.replicas[#reply.replicas + 1] = field end
    end
  end
end
