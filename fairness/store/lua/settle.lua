-- settle LEASE INPUT CACHED OUTPUT: close a lease, once, with the tokens really used.
-- They may be less than was charged (a prediction, or what a stop string cut off).
-- 0 0 0 is a refusal: free. Also confirms a lease that was taken back, and pays for it should
-- the replica have worked on it before it knew. Idempotent: a lease that is over is ignored.
-- O(log clients).
local LEARNING_RATE = 0.05 -- of tokens a byte, which estimates the next prompts; at most one

local function settle(id, request, input, cached, output)
  set_charge(id, request, input, cached, output, service_of(input, cached, output))
  release(id, request)
  finish(id, request)
  reply.counters[request.client] = true
end

local function confirm(lease, payer, input, cached, output)
  call('HDEL', void_key(SENDER), lease)
  local weight, client = payer:match('^(%S+) (.*)$')
  local service = service_of(input, cached, output)
  if not client or service == 0 then return end
  add_to_counter(client, service / tonumber(weight))
  count_usage(client, input, cached, output, service)
  reply.counters[client] = true
end

verbs.settle = function(lease, input, cached, output)
  input, cached, output = tonumber(input), tonumber(cached), tonumber(output)
  local payer = call('HGET', void_key(SENDER), lease)
  if payer then return confirm(lease, payer, input, cached, output) end
  local id, request = held(lease)
  if not id then return end
  settle(id, request, input, cached, output)
  if NUMBER > 0 then call('SADD', settled_key(SENDER), lease) end
  if input > 0 and request.bytes > 0 then
    local rate = pool.tokens_per_byte
    pool.tokens_per_byte = rate + LEARNING_RATE * (math.min(1, input / request.bytes) - rate)
  end
  if output > 0 then remember_output(request.client, output) end
end
