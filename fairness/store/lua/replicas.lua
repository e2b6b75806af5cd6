-- replicas: the policy, and who takes requests (heard of lately, not draining). O(replicas).
verbs.replicas = function()
  reply.replicas = {current_policy()}
  for _, replica in ipairs(call('ZRANGEBYSCORE', REPLICAS, NOW - SENDER_TTL, '+inf')) do
    local offer = call('HMGET', PREFIX .. 'replica:' .. replica, 'url', 'limit')
    if tonumber(offer[2] or '0') > 0 then
      reply.replicas[#reply.replicas + 1] = replica
      reply.replicas[#reply.replicas + 1] = offer[1]
    end
  end
end
