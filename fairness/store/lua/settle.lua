-- settle LEASE INPUT CACHED OUTPUT: close a lease, once, with the tokens really used.
-- They may be less than was charged (what a stop string cut off is not the client's).
-- 0 0 0 is a refusal: free. Also confirms a lease that was taken back. Idempotent: an
-- unknown lease is over already. O(log clients).
local LEARNING_RATE = 0.05 -- of tokens a byte, which estimates the next prompts; at most one

local function settle(id, request, input, cached, output)
  set_charge(id, request, input, cached, output, service_of(input, cached, output))
  release(id, request)
  finish(id, request)
  reply.counters[request.client] = true
end

verbs.settle = function(lease, input, cached, output)
  call('SREM', PREFIX .. 'void:' .. SENDER, lease)
  local id, request = load_lease(lease)
  if not id or request.replica ~= SENDER then return end
  settle(id, request, tonumber(input), tonumber(cached), tonumber(output))
  local bytes = tonumber(request.bytes)
  if tonumber(input) > 0 and bytes > 0 then
    local rate = tonumber(call('HGET', POOL, 'tokens_per_byte') or '0.25')
    call('HSET', POOL, 'tokens_per_byte', text(rate + LEARNING_RATE * (math.min(1, tonumber(input) / bytes) - rate)))
  end
end
