-- settle LEASE INPUT CACHED OUTPUT: close a lease, once, with the tokens really used.
-- They may be less than was charged (a prediction, or what a stop string cut off).
-- 0 0 0 is a refusal: free. Also confirms a lease that was taken back, and pays for it should
-- the replica have worked on it before it knew. Idempotent: a lease that is over is ignored.
-- O(log clients).
local LEARNING_RATE = 0.05 -- of tokens a byte, which estimates the next prompts; at most one

-- One that reached the engine has ended; `count` is -1 if it goes on after all.
local function count_request(client, input, count)
  if input == 0 then return end
  local used = used_today(client)
  used.requests = used.requests + (count or 1)
  client.changed = true
end

local function settle(request, input, cached, output)
  local client, service = clients:get(request.client), service_of(request.price, input, cached, output)
  note_end(request, request.replica == SENDER and 'settled' or 'lost', service, input, cached, output)
  set_charge(client, request, input, cached, output, service)
  count_request(client, input)
  release(client, request)
  over(request, input + output)
  reply.counters[request.client] = true
  return client
end

local function confirm(lease, payer, input, cached, output)
  voids_of(SENDER):delete(lease)
  local weight, price, name = payer:match('^(%S+) (%S+) (.*)$')
  local service = service_of(tonumber(price) or 1, input, cached, output)
  if not name or service == 0 then return end
  local client = clients:get(name)
  add_service(client, service, tonumber(weight))
  count_usage(client, input, cached, output, service)
  count_request(client, input)
  limits.pay(client, input + output)
  reply.counters[name] = true
end

speaks_of.settle = {lease = 1, ends = true}
verbs.settle = function(lease, input, cached, output)
  input, cached, output = tonumber(input), tonumber(cached), tonumber(output)
  local void = voids_of(SENDER):get(lease)
  if void then return confirm(lease, void.payer, input, cached, output) end
  local request = held(lease)
  if not request then return end
  local reserved = request.reserved
  local client = settle(request, input, cached, output)
  if NUMBER > 0 then plain_set('settled', SENDER):add(lease, true) end
  if input > 0 and request.bytes > 0 then
    local rate = pool.tokens_per_byte
    pool.tokens_per_byte = rate + LEARNING_RATE * (math.min(1, input / request.bytes) - rate)
  end
  if output > 0 then remember_output(client, output, reserved) end
end
