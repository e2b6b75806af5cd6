-- The state of one pool's global queue, and the few moves every verb is made of.
--
-- KEYS[1]  prefix, "fairlane:2:{pool}"; every other key is derived from it and
--          shares its hash tag, so that a pool lives on one Cluster node.
-- ARGV     header (below), then verbs with their arguments (call.lua).
-- Units    time: milliseconds of the server's clock; counters: service / weight.
--
-- key                  type    what
-- ..:pool              hash    seq, virtual_time, last_left, tokens_per_byte,
--                              policy, policy_version, longest, swept
-- ..:reasons           set     why the policy was set, each heeded once
-- ..:backlogged        zset    client -> counter, clients with a waiting request
-- ..:active            zset    client -> counter, none waiting, some running
-- ..:idle              zset    client -> counter, neither; only counters above V
-- ..:line:CLIENT       zset    request -> arrival number, that client's FIFO
-- ..:arrivals          zset    request -> arrival number, the whole pool
-- ..:request:ID        hash    client router weight bytes seq attempt
--                              [lease: replica input cached output charged reserved arrived]
-- ..:running           hash    client -> number of leases
-- ..:usage             hash    client -> "input cached output service"
-- ..:outputs           hash    client -> output lengths of its last requests (predict.lua)
-- ..:routers           zset    router -> time last heard of
-- ..:routed:ROUTER     set     requests it submitted that have not ended
-- ..:replicas          zset    replica -> time last heard of
-- ..:replica:ID        hash    url, limit, granted, version
-- ..:leases:REPLICA    set     requests leased to it
-- ..:load              zset    replica -> -credits (granted - limit), those with credits
-- ..:unseen            zset    lease -> time by which its replica must have seen it
-- ..:void:REPLICA      hash    lease taken back -> who pays if it was used after all
--                              ("weight client", or "" for nobody); until the replica confirms
-- ..:settled:REPLICA   set     leases settled in calls that it has not had a reply to
-- ..:calls             hash    sender -> "number lost": its last call applied, and the call
--                              in which it was first told of a loss (0: none to tell of)
local PREFIX = KEYS[1] .. ':'
local POOL, BACKLOGGED, ACTIVE, IDLE = PREFIX .. 'pool', PREFIX .. 'backlogged', PREFIX .. 'active', PREFIX .. 'idle'
local ARRIVALS, RUNNING, USAGE, OUTPUTS = PREFIX .. 'arrivals', PREFIX .. 'running', PREFIX .. 'usage', PREFIX .. 'outputs'
local ROUTERS, REPLICAS, LOAD, UNSEEN = PREFIX .. 'routers', PREFIX .. 'replicas', PREFIX .. 'load', PREFIX .. 'unseen'
local CALLS, REASONS = PREFIX .. 'calls', PREFIX .. 'reasons'

-- ARGV begins with the call's header.
local KIND, SENDER = ARGV[1], ARGV[2] -- "router" or "replica"; its name
local NUMBER, ACKED = tonumber(ARGV[3]), tonumber(ARGV[4]) -- of this call; of the last one it heard a reply to
local INPUT_WEIGHT, OUTPUT_WEIGHT = tonumber(ARGV[5]), tonumber(ARGV[6])
local SENDER_TTL, GRANT_TTL = tonumber(ARGV[7]), tonumber(ARGV[8])
local PREDICTOR, SHARE, LEVEL, WINDOW = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local PLACEMENT = ARGV[13]
local GIVEN_TIME = ARGV[14] -- instead of the server's clock, for tests; "" otherwise
local HEADER = 14

local call = redis.call
local NOW = tonumber(GIVEN_TIME)
if not NOW then
  local clock = call('TIME')
  NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

-- Lua numbers come back truncated to integers; counters travel as text.
local function text(number) return string.format('%.17g', number) end

-- The pool's few numbers are read once a call and written once, at its end.
local POOL_FIELDS = {'seq', 'virtual_time', 'last_left', 'tokens_per_byte', 'policy', 'policy_version', 'longest', 'swept'}
local POOL_DEFAULTS = {seq = 0, virtual_time = 0, tokens_per_byte = 0.25, policy = 'vtc', policy_version = 0}
local pool, pool_as_read = {}, {}
for i, value in ipairs(call('HMGET', POOL, unpack(POOL_FIELDS))) do
  local field = POOL_FIELDS[i]
  if field ~= 'last_left' and field ~= 'policy' then value = tonumber(value or nil) end
  pool[field] = value or POOL_DEFAULTS[field]
  pool_as_read[field] = pool[field]
end

local function write_pool()
  local changed = {}
  for _, field in ipairs(POOL_FIELDS) do
    local value = pool[field]
    if value ~= pool_as_read[field] then
      changed[#changed + 1] = field
      changed[#changed + 1] = type(value) == 'number' and text(value) or value
    end
  end
  if changed[1] then call('HSET', POOL, unpack(changed)) end
end

local function request_key(id) return PREFIX .. 'request:' .. id end
local function line_key(client) return PREFIX .. 'line:' .. client end
local function leases_key(replica) return PREFIX .. 'leases:' .. replica end
local function routed_key(router) return PREFIX .. 'routed:' .. router end
local function replica_key(replica) return PREFIX .. 'replica:' .. replica end
local function settled_key(replica) return PREFIX .. 'settled:' .. replica end
local function void_key(replica) return PREFIX .. 'void:' .. replica end

-- Where a client stands: {set, counter}, read once a call and kept true by `place`. An empty one
-- is unknown, which means "idle with a counter not above V".
local standings = {}
local SETS = {BACKLOGGED, ACTIVE, IDLE}

local function standing(client)
  local known = standings[client]
  if known then return known end
  known = {}
  for _, set in ipairs(SETS) do
    local counter = call('ZSCORE', set, client)
    if counter then
      known.set, known.counter = set, tonumber(counter)
      break
    end
  end
  standings[client] = known
  return known
end

local function place(client, set, counter)
  local old = standing(client)
  if old.set and old.set ~= set then call('ZREM', old.set, client) end
  if set and (old.set ~= set or old.counter ~= counter) then call('ZADD', set, text(counter), client) end
  old.set, old.counter = set, set and counter
end

-- V: no newcomer starts below it. It rises to the smallest backlogged counter or, with no one
-- backlogged, to the counter of the client that left the queue last (VTC, Algorithm 2); it never
-- falls, so idle clients at or below it can be dropped.
local function virtual_time()
  local floor = tonumber(call('ZRANGE', BACKLOGGED, 0, 0, 'WITHSCORES')[2])
  if not floor and pool.last_left then floor = standing(pool.last_left).counter end
  if floor and floor > pool.virtual_time then pool.virtual_time = floor end
  return pool.virtual_time
end

-- Drop idle clients at or below V; a bounded number a call, since nothing depends on when.
local DROP_LIMIT = 100
local function drop_idle()
  local dropped = call('ZRANGEBYSCORE', IDLE, '-inf', text(pool.virtual_time), 'LIMIT', 0, DROP_LIMIT)
  if not dropped[1] then return end
  call('ZREM', IDLE, unpack(dropped))
  call('HDEL', OUTPUTS, unpack(dropped))
end

-- Put a client with nothing waiting where it belongs.
local function rest(client)
  local known = standing(client)
  if not known.set then return end
  if call('HEXISTS', RUNNING, client) == 1 then
    place(client, ACTIVE, known.counter)
  elseif known.counter > pool.virtual_time then
    place(client, IDLE, known.counter)
  else
    place(client, nil)
    if WINDOW > 0 then call('HDEL', OUTPUTS, client) end
  end
end

local function rest_unless_backlogged(client)
  if standing(client).set ~= BACKLOGGED then rest(client) end
end

local function add_to_counter(client, amount)
  if amount == 0 then return end
  local known = standing(client)
  if known.set then
    place(client, known.set, known.counter + amount)
  else
    place(client, ACTIVE, virtual_time() + amount)
    rest(client)
  end
end

local function stand_in_line(client, id, seq)
  call('ZADD', line_key(client), seq, id)
  call('ZADD', ARRIVALS, seq, id)
end

-- Join the line: a client that was not backlogged is lifted first.
local function enqueue(client, id, seq)
  local known = standing(client)
  if known.set ~= BACKLOGGED then
    place(client, BACKLOGGED, math.max(known.counter or 0, virtual_time()))
  end
  stand_in_line(client, id, seq)
end

-- Leave the line, granted or cancelled.
local function dequeue(client, id)
  call('ZREM', ARRIVALS, id)
  call('ZREM', line_key(client), id)
  if call('EXISTS', line_key(client)) == 0 then
    pool.last_left = client
    rest(client)
  end
end

local function set_credits(replica, credits)
  if credits > 0 then call('ZADD', LOAD, -credits, replica) else call('ZREM', LOAD, replica) end
end

-- "ID.ATTEMPT": a request granted again is another lease, so that what an earlier
-- replica says of the earlier lease cannot touch the later one.
local function lease_of(id, attempt) return string.format('%s.%d', id, attempt) end
local function split_lease(lease)
  local id, attempt = lease:match('^(.*)%.(%d+)$')
  return id, tonumber(attempt)
end

local usage = {} -- client -> {input, cached, output, service} to add when the call ends

local function count_usage(client, input, cached, output, service)
  local sum = usage[client]
  if not sum then
    sum = {0, 0, 0, 0}
    usage[client] = sum
  end
  sum[1], sum[2], sum[3], sum[4] = sum[1] + input, sum[2] + cached, sum[3] + output, sum[4] + service
end

local function write_usage()
  for client, sum in pairs(usage) do
    local input, cached, output, service = (call('HGET', USAGE, client) or '0 0 0 0'):match('(%S+) (%S+) (%S+) (%S+)')
    call('HSET', USAGE, client, string.format('%d %d %d %.17g', tonumber(input) + sum[1],
         tonumber(cached) + sum[2], tonumber(output) + sum[3], tonumber(service) + sum[4]))
  end
end

local function service_of(input, cached, output)
  return INPUT_WEIGHT * (input - cached) + OUTPUT_WEIGHT * output
end

local NUMBERS = {'weight', 'bytes', 'seq', 'attempt', 'input', 'cached', 'output', 'charged', 'reserved'}

local function load(id)
  local flat = call('HGETALL', request_key(id))
  if not flat[1] then return nil end
  local request = {}
  for i = 1, #flat, 2 do request[flat[i]] = flat[i + 1] end
  for _, field in ipairs(NUMBERS) do request[field] = tonumber(request[field]) end
  return request
end

-- The request that holds this lease now, or nil when the lease is over.
local function load_lease(lease)
  local id, attempt = split_lease(lease)
  local request = id and load(id)
  if request and request.replica and request.attempt == attempt then return id, request end
end

-- A lease begins: its client has one more running.
local function hold(id, request, replica, attempt, charged, reserved)
  request.replica, request.attempt, request.charged, request.reserved = replica, attempt, charged, reserved
  call('HSET', request_key(id), 'replica', replica, 'attempt', attempt, 'charged', text(charged),
       'reserved', text(reserved), 'input', 0, 'cached', 0, 'output', 0)
  request.input, request.cached, request.output = 0, 0, 0
  call('SADD', leases_key(replica), id)
  call('HINCRBY', RUNNING, request.client, 1)
end

-- Set a lease's totals. `charged`: their service, or more while a prediction stands.
local function set_totals(id, request, input, cached, output, charged)
  call('HSET', request_key(id), 'input', input, 'cached', cached, 'output', output, 'charged', text(charged))
  request.input, request.cached, request.output, request.charged = input, cached, output, charged
end

-- The same, and charge the client the difference; the first truth replaces the estimate that
-- was charged at the grant.
local function set_charge(id, request, input, cached, output, charged)
  add_to_counter(request.client, (charged - request.charged) / request.weight)
  count_usage(request.client, input - request.input, cached - request.cached, output - request.output,
              service_of(input, cached, output) - service_of(request.input, request.cached, request.output))
  set_totals(id, request, input, cached, output, charged)
end

-- Take back all that a lease was charged.
local function refund(request)
  add_to_counter(request.client, -request.charged / request.weight)
  count_usage(request.client, -request.input, -request.cached, -request.output,
              -service_of(request.input, request.cached, request.output))
end

-- The lease is over; its request is not (requeue) or is (finish).
local function release(id, request)
  call('SREM', leases_key(request.replica), id)
  if not request.arrived then call('ZREM', UNSEEN, lease_of(id, request.attempt)) end
  if call('HINCRBY', RUNNING, request.client, -1) <= 0 then call('HDEL', RUNNING, request.client) end
end

-- The replica has not confirmed that this lease is over: its slot stays taken until it does.
-- payer: "weight client" if it is to be paid for should it have been used after all.
local function void(id, request, payer)
  if call('ZSCORE', REPLICAS, request.replica) then
    call('HSET', void_key(request.replica), lease_of(id, request.attempt), payer)
  end
end

-- The request is over: forget it.
local function finish(id, request)
  call('DEL', request_key(id))
  call('SREM', routed_key(request.router), id)
  rest_unless_backlogged(request.client)
end

-- A grant that will not be used, as far as is known here: free, and its request is over.
local function take_back(id, request)
  refund(request)
  void(id, request, text(request.weight) .. ' ' .. request.client)
  release(id, request)
  finish(id, request)
end

local reply = {grants = {}, gone = {}, counters = {}, unknown = {}, pool = {}}
local verbs = {}

-- What a router needs to know of a lease.
local function describe(list, id, request, url)
  list[#list + 1] = id
  list[#list + 1] = lease_of(id, request.attempt)
  list[#list + 1] = request.replica
  list[#list + 1] = url or call('HGET', replica_key(request.replica), 'url') or ''
  list[#list + 1] = text(standing(request.client).counter or pool.virtual_time)
end
