-- ends: the sender's explained leases that are over since it asked last, the oldest first. What a lost
-- reply had is lost: it concerns the story only.
local ENDS_LIMIT = 500

verbs.ends = function()
  local key = key_of('ends', SENDER)
  reply.ends = call('LRANGE', key, 0, ENDS_LIMIT - 1)
  if reply.ends[1] then call('LTRIM', key, ENDS_LIMIT, -1) end
end
