-- The few moves that every verb is made of. A move keeps the records and the sets that follow from
-- them in step.
local backlogged, arrivals = sorted_set('backlogged'), sorted_set('arrivals')
local unseen, loads = sorted_set('unseen'), sorted_set('load')

local reply = {grants = {}, gone = {}, counters = {}, unknown = {}, pool = {}}
local verbs, speaks_of = {}, {} -- by name; speaks_of: which argument is a request, lease or client

-- The end of a call.
local function write_all()
  for _, view in ipairs(hashes) do view:write() end
  for _, view in ipairs(sets) do view:write() end
  write_pool()
  write_session()
end

-- Where newcomers start, as of the last lift: V less the burst that each is allowed, so much for
-- each replica that the last heartbeat has seen.
local function start() return pool.virtual_time - BURST * pool.servers end

-- A client that neither waits nor runs and is not above the start is unknown: what it is owed is
-- what anybody would get. So nobody need be dropped when V rises, and only what it used in all counts.
local function known(client)
  return client.waiting > 0 or client.running > 0 or client.counter > start()
end

local function counter_of(client) return known(client) and client.counter or start() end

-- V rises to the smallest backlogged counter or, with no one
-- backlogged, to the counter of the client that left the queue last (VTC, Algorithm 2); it never
-- falls, so who has become unknown stays unknown. Without lifts (LCF) it stands still.
local function level()
  if pool.policy == 'lcf' then return pool.virtual_time end
  local lowest, floor = backlogged:lowest()
  if not lowest and pool.last_left then floor = clients:get(pool.last_left).counter end
  return math.max(pool.virtual_time, floor or 0)
end

local function lift()
  pool.virtual_time = level()
  return start()
end

local function set_counter(client, counter)
  client.counter = counter
  client.changed = true
  if client.waiting > 0 then backlogged:move(client.name, counter) end
end

-- An unknown client becomes known.
local function begin(client)
  if known(client) then return end
  client.outputs = ''
  set_counter(client, lift())
end

local function add_to_counter(client, amount)
  if amount == 0 then return end
  begin(client)
  set_counter(client, client.counter + amount)
end

local function line_of(client)
  client.line = client.line or sorted_set('line', client.name, client.waiting == 0)
  return client.line
end

-- Where a request stands in its client's line: by the client's own priority, then by arrival.
-- Both fit in the 53 bits of a score.
local function place_of(request) return request.priority * 2 ^ 40 + request.seq end

local function stand_in_line(client, request)
  line_of(client):add(request.id, place_of(request))
  arrivals:add(request.id, request.seq)
  plain_set('routed', request.router):add(request.id, true)
  if client.waiting == 0 then backlogged:add(client.name, client.counter) end
  client.waiting = client.waiting + 1
  client.changed = true
end

-- Join the line: a client that was not backlogged is lifted first.
local function enqueue(client, request)
  if client.waiting == 0 then
    if not known(client) then client.outputs = '' end -- has no history
    client.counter = math.max(client.counter, lift())
  end
  stand_in_line(client, request)
end

-- Leave the line, granted or cancelled.
local function dequeue(client, request)
  line_of(client):remove(request.id)
  arrivals:remove(request.id)
  plain_set('routed', request.router):remove(request.id)
  client.waiting = client.waiting - 1
  client.changed = true
  if client.waiting == 0 then
    backlogged:remove(client.name)
    pool.last_left = client.name
  end
end

local function set_credits(offer, credits)
  local had = offer.credits > 0
  offer.credits = credits
  offer.changed = true
  if credits <= 0 then
    if had then loads:remove(offer.replica) end
  elseif had then
    loads:move(offer.replica, -credits)
  else
    loads:add(offer.replica, -credits)
  end
end

-- "ID.ATTEMPT": a request granted again is another lease, so that what an earlier
-- replica says of the earlier lease cannot touch the later one.
local function lease_of(request) return request.id .. '.' .. request.attempt end
local function split_lease(lease)
  local id, attempt = lease:match('^(.*)%.(%d+)$')
  return id, tonumber(attempt)
end

-- The request that holds this lease now, or nil when the lease is over.
local function leased_request(lease)
  local id, attempt = split_lease(lease)
  local request = id and requests:get(id)
  if request and request.replica and request.attempt == attempt then return request end
end

local function new_request(id, client, router, weight, bytes, attempt, priority)
  pool.seq = pool.seq + 1
  local request = {id = id, client = client, router = router, weight = weight, bytes = bytes, seq = pool.seq, attempt = attempt,
                   priority = priority, charged = 0, reserved = 0, input = 0, cached = 0, output = 0, arrived = false}
  requests:put(id, request)
  return request
end

local function service_of(input, cached, output)
  return INPUT_WEIGHT * (input - cached) + CACHED_WEIGHT * cached + OUTPUT_WEIGHT * output
end

local function count_usage(client, input, cached, output, service)
  client.input, client.cached, client.output = client.input + input, client.cached + cached, client.output + output
  client.service = client.service + service
  client.changed = true
end

-- A lease begins: its client has one more running.
local function hold(client, request, replica, attempt, charged, reserved)
  request.replica, request.attempt, request.charged, request.reserved = replica, attempt, charged, reserved
  request.input, request.cached, request.output = 0, 0, 0
  request.changed = true
  plain_set('leases', replica):add(request.id, true)
  client.running = client.running + 1
  client.changed = true
end

-- Its replica has seen it.
local function see(request)
  request.arrived = true
  request.changed = true
  unseen:remove(request.id)
end

-- Set a lease's totals. `charged`: their service, or more while a prediction stands.
local function set_totals(request, input, cached, output, charged)
  request.input, request.cached, request.output, request.charged = input, cached, output, charged
  request.changed = true
end

-- The same, and charge the client the difference; the first truth replaces the estimate that
-- was charged at the grant.
local function set_charge(client, request, input, cached, output, charged)
  add_to_counter(client, (charged - request.charged) / request.weight)
  count_usage(client, input - request.input, cached - request.cached, output - request.output,
              service_of(input, cached, output) - service_of(request.input, request.cached, request.output))
  set_totals(request, input, cached, output, charged)
end

-- The lease is over; its request is not (requeue) or is (and then deleted).
local function release(client, request)
  plain_set('leases', request.replica):remove(request.id)
  if not request.arrived then unseen:remove(request.id) end
  client.running = client.running - 1
  client.changed = true
end

-- What a router needs to know of a lease.
local function describe(list, request)
  list[#list + 1] = request.id
  list[#list + 1] = lease_of(request)
  list[#list + 1] = request.replica
  list[#list + 1] = offers:get(request.replica).url or ''
  list[#list + 1] = text(counter_of(clients:get(request.client)))
end
