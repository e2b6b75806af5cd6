-- The state of one pool's global queue, and the few moves every verb is made of.
--
-- KEYS[1]  prefix, "fairlane:1:{pool}"; every other key is derived from it and
--          shares its hash tag, so that a pool lives on one Cluster node.
-- ARGV     header (below), then verbs with their arguments (call.lua).
-- Units    time: milliseconds of the server's clock; counters: service / weight.
--
-- key                  type    what
-- ..:pool              hash    seq, virtual_time, last_left, tokens_per_byte,
--                              policy, longest, swept
-- ..:reasons           set     why the policy was set, each heeded once
-- ..:backlogged        zset    client -> counter, clients with a waiting request
-- ..:active            zset    client -> counter, none waiting, some running
-- ..:idle              zset    client -> counter, neither; only counters above V
-- ..:line:CLIENT       zset    request -> arrival number, that client's FIFO
-- ..:arrivals          zset    request -> arrival number, the whole pool
-- ..:request:ID        hash    client router weight bytes seq since attempt
--                              [lease: replica estimate input cached output charged arrived]
-- ..:running           hash    client -> number of leases
-- ..:usage             hash    client -> "input cached output service"
-- ..:routers           zset    router -> time last heard of
-- ..:routed:ROUTER     set     requests it submitted that have not ended
-- ..:replicas          zset    replica -> time last heard of
-- ..:replica:ID        hash    url, limit, granted, version
-- ..:leases:REPLICA    set     requests leased to it
-- ..:credits           zset    replica -> limit - granted, positive only
-- ..:unseen            zset    lease -> time by which its replica must have seen it
-- ..:void:REPLICA      set     leases taken back; stays until the replica confirms
local PREFIX = KEYS[1] .. ':'
local POOL, BACKLOGGED, ACTIVE, IDLE = PREFIX .. 'pool', PREFIX .. 'backlogged', PREFIX .. 'active', PREFIX .. 'idle'
local ARRIVALS, RUNNING, USAGE = PREFIX .. 'arrivals', PREFIX .. 'running', PREFIX .. 'usage'
local ROUTERS, REPLICAS, CREDITS, UNSEEN = PREFIX .. 'routers', PREFIX .. 'replicas', PREFIX .. 'credits', PREFIX .. 'unseen'

-- ARGV begins with the call's header: kind of sender, sender, cost weights, how long a
-- silent sender is taken for alive, how long a grant may stay unseen by its replica.
local KIND, SENDER = ARGV[1], ARGV[2]
local INPUT_WEIGHT, OUTPUT_WEIGHT = tonumber(ARGV[3]), tonumber(ARGV[4])
local SENDER_TTL, GRANT_TTL = tonumber(ARGV[5]), tonumber(ARGV[6])
local HEADER = 6

local call = redis.call
local clock = call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- Lua numbers come back truncated to integers; counters travel as text.
local function text(number) return string.format('%.17g', number) end

local function request_key(id) return PREFIX .. 'request:' .. id end
local function line_key(client) return PREFIX .. 'line:' .. client end

-- A client's counter and the set it is in; nil when it is unknown, which means
-- "idle with a counter not above V".
local function find(client)
  for _, set in ipairs({BACKLOGGED, ACTIVE, IDLE}) do
    local counter = call('ZSCORE', set, client)
    if counter then return tonumber(counter), set end
  end
end

-- V: no newcomer starts below it. It rises to the smallest backlogged counter or,
-- with no one backlogged, to the counter of the client that left the queue last
-- (VTC, Algorithm 2); it never falls, so idle clients at or below it can be dropped.
local function virtual_time()
  local pool = call('HMGET', POOL, 'virtual_time', 'last_left')
  local v = tonumber(pool[1] or '0')
  local floor = tonumber(call('ZRANGE', BACKLOGGED, 0, 0, 'WITHSCORES')[2])
  if not floor and pool[2] then floor = find(pool[2]) end
  if floor and floor > v then
    v = floor
    call('HSET', POOL, 'virtual_time', text(v))
    call('ZREMRANGEBYSCORE', IDLE, '-inf', text(v))
  end
  return v
end

local function move(client, from, to, counter)
  if from == to then return end
  if from then call('ZREM', from, client) end
  if to then call('ZADD', to, text(counter), client) end
end

-- Put a client with nothing waiting where it belongs.
local function rest(client)
  local counter, set = find(client)
  if not counter then return end
  if call('HEXISTS', RUNNING, client) == 1 then
    move(client, set, ACTIVE, counter)
  elseif counter <= tonumber(call('HGET', POOL, 'virtual_time') or '0') then
    move(client, set, nil, counter)
  else
    move(client, set, IDLE, counter)
  end
end

local function add_to_counter(client, amount)
  if amount == 0 then return end
  local counter, set = find(client)
  if counter then
    call('ZINCRBY', set, text(amount), client)
  else
    call('ZADD', ACTIVE, text(virtual_time() + amount), client)
    rest(client)
  end
end

-- Stand in line: a client that was not backlogged is lifted first.
local function enqueue(client, id, seq)
  local counter, set = find(client)
  if set ~= BACKLOGGED then
    move(client, set, BACKLOGGED, math.max(counter or 0, virtual_time()))
  end
  call('ZADD', line_key(client), seq, id)
  call('ZADD', ARRIVALS, seq, id)
end

-- Leave the line, granted or cancelled.
local function dequeue(client, id)
  call('ZREM', ARRIVALS, id)
  call('ZREM', line_key(client), id)
  if call('EXISTS', line_key(client)) == 0 then
    call('HSET', POOL, 'last_left', client)
    rest(client)
  end
end

local function set_credits(replica, credits)
  if credits > 0 then call('ZADD', CREDITS, credits, replica) else call('ZREM', CREDITS, replica) end
end

-- "ID.ATTEMPT": a request granted again is another lease, so that what an earlier
-- replica says of the earlier lease cannot touch the later one.
local function lease_of(id, attempt) return id .. '.' .. attempt end
local function split_lease(lease) return lease:match('^(.*)%.(%d+)$') end

local usage = {} -- client -> {input, cached, output, service} to add when the call ends

local function count_usage(client, input, cached, output, service)
  local sum = usage[client] or {0, 0, 0, 0}
  usage[client] = {sum[1] + input, sum[2] + cached, sum[3] + output, sum[4] + service}
end

local function service_of(input, cached, output)
  return INPUT_WEIGHT * (input - cached) + OUTPUT_WEIGHT * output
end

-- Set a lease's charge to these cumulative totals; the first truth replaces the estimate that
-- was charged at the grant.
local function set_charge(id, request, input, cached, output, service)
  local input0, cached0, output0 = tonumber(request.input), tonumber(request.cached), tonumber(request.output)
  add_to_counter(request.client, (service - tonumber(request.charged)) / tonumber(request.weight))
  call('HSET', request_key(id), 'input', input, 'cached', cached, 'output', output, 'charged', text(service))
  count_usage(request.client, input - input0, cached - cached0, output - output0,
              service_of(input, cached, output) - service_of(input0, cached0, output0))
  request.input, request.cached, request.output, request.charged = input, cached, output, service
end

-- Take back all that a lease was charged.
local function refund(request)
  local input, cached, output = tonumber(request.input), tonumber(request.cached), tonumber(request.output)
  add_to_counter(request.client, -tonumber(request.charged) / tonumber(request.weight))
  count_usage(request.client, -input, -cached, -output, -service_of(input, cached, output))
end

-- The lease is over; its request is not (requeue) or is (finish).
local function release(id, request)
  call('SREM', PREFIX .. 'leases:' .. request.replica, id)
  call('ZREM', UNSEEN, lease_of(id, request.attempt))
  if call('HINCRBY', RUNNING, request.client, -1) <= 0 then call('HDEL', RUNNING, request.client) end
end

-- The replica never confirmed this lease: its slot stays taken until it does.
local function void(id, request)
  if call('ZSCORE', REPLICAS, request.replica) then
    call('SADD', PREFIX .. 'void:' .. request.replica, lease_of(id, request.attempt))
  end
end

-- The request is over: forget it.
local function finish(id, request)
  call('DEL', request_key(id))
  call('SREM', PREFIX .. 'routed:' .. request.router, id)
  if call('ZSCORE', BACKLOGGED, request.client) == false then rest(request.client) end
end

local function load(id)
  local flat = call('HGETALL', request_key(id))
  if #flat == 0 then return nil end
  local request = {}
  for i = 1, #flat, 2 do request[flat[i]] = flat[i + 1] end
  return request
end

-- The request that holds this lease now, or nil when the lease is over.
local function load_lease(lease)
  local id, attempt = split_lease(lease)
  local request = id and load(id)
  if request and request.replica and request.attempt == attempt then return id, request end
end

-- A grant that will not be used: free, and its request is over.
local function take_back(id, request)
  refund(request)
  void(id, request)
  release(id, request)
  finish(id, request)
end

local reply = {grants = {}, gone = {}, counters = {}, voided = {}, replicas = {}}
local verbs = {}

-- What a router needs to know of a lease.
local function describe(list, id, request, url)
  list[#list + 1] = id
  list[#list + 1] = lease_of(id, request.attempt)
  list[#list + 1] = request.replica
  list[#list + 1] = url or call('HGET', PREFIX .. 'replica:' .. request.replica, 'url') or ''
  list[#list + 1] = text((find(request.client)))
end
