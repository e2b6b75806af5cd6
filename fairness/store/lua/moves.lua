-- The few moves that every verb is made of. A move keeps the records and the sets that follow from
-- them in step.
local backlogged, arrivals = sorted_set('backlogged'), sorted_set('arrivals')
local unseen, loads = sorted_set('unseen'), sorted_set('load')

local reply = {grants = {}, gone = {}, counters = {}, unknown = {}, pool = {}, ends = {}}
local verbs, speaks_of = {}, {} -- by name; speaks_of: which argument is a request, lease or client; has it
                                -- terms (limits.lua), does it end the request?
local limits = {} -- limits.lua, when it is needed

-- The end of a call.
local function write_all()
  for _, view in ipairs(hashes) do view:write() end
  for _, view in ipairs(sets) do view:write() end
  write_owed()
  write_pool()
  write_session()
end

-- A tree: clients stand in groups, groups in groups, and who is in none stands in the pool itself.
-- Among those that stand together VTC decides whose turn it is, by their counters; so on each level a
-- share that one does not use goes to its neighbours first.
local function node_named(name) return name:sub(-1) == '/' and groups:get(name) or clients:get(name) end
local function parent_of(node) return node.parent == '/' and pool or groups:get(node.parent) end

-- Those in a group (or in the pool) that have something waiting.
local function backlog_of(group)
  if group == pool then return backlogged end
  group.backlog = group.backlog or sorted_set('backlogged', group.name, group.waiting == 0)
  return group.backlog
end

-- Where newcomers start, as of the last lift: V less the burst that each is allowed, so much for
-- each replica that the last heartbeat has seen.
local function start(group) return group.virtual_time - BURST * pool.servers end

-- Who neither waits nor runs and is not above the start is unknown: what it is owed is what anybody
-- would get. So nobody need be dropped when V rises, and only what it used in all counts.
local function known(node)
  return node.waiting > 0 or node.running > 0 or node.counter > start(parent_of(node))
end

local function counter_of(node) return known(node) and node.counter or start(parent_of(node)) end

-- V rises to the smallest backlogged counter or, with no one backlogged, to the counter of who left
-- the queue last (VTC, Algorithm 2); it never falls, so who has become unknown stays unknown.
-- Without lifts (LCF) it stands still.
local function level(group)
  if pool.policy == 'lcf' then return group.virtual_time end
  local lowest, floor = backlog_of(group):lowest()
  local last = group.last_left
  if not lowest and last and last ~= '' then floor = node_named(last).counter end
  return math.max(group.virtual_time, floor or 0)
end

local function lift(group)
  group.virtual_time = level(group)
  group.changed = true
  return start(group)
end

local function set_counter(node, counter)
  node.counter = counter
  node.changed = true
  if node.waiting > 0 then backlog_of(parent_of(node)):move(node.name, counter) end
end

-- Who is unknown becomes known.
local function begin(node)
  if known(node) then return end
  node.outputs = ''
  set_counter(node, lift(parent_of(node)))
end

-- Charge a client, and the groups it stands in; what is given back is below 0.
local function add_service(client, service, weight)
  if service == 0 then return end
  begin(client)
  set_counter(client, client.counter + service / weight)
  local group = parent_of(client)
  while group ~= pool do
    begin(group)
    set_counter(group, group.counter + service / group.weight)
    group = parent_of(group)
  end
  charge_classes(outermost_of(client), service)
end

-- One more of what is in it waits. The first makes it backlogged, in its own group; `returning`: it
-- comes anew, and is lifted before.
local function begin_waiting(node, returning)
  if node == pool then return end
  if node.waiting == 0 then
    local parent = parent_of(node)
    if returning then
      if not known(node) then node.outputs = '' end -- has no history
      node.counter = math.max(node.counter, lift(parent))
    end
    backlog_of(parent):add(node.name, node.counter)
    begin_waiting(parent, returning)
  end
  node.waiting = node.waiting + 1
  node.changed = true
end

local function end_waiting(node)
  if node == pool then return end
  node.waiting = node.waiting - 1
  node.changed = true
  if node.waiting == 0 then
    local parent = parent_of(node)
    backlog_of(parent):remove(node.name)
    parent.last_left = node.name
    end_waiting(parent)
  end
end

local function add_running(node, count)
  while node ~= pool do
    node.running = node.running + count
    if node.running > pool.most then pool.most = node.running end
    node.changed = true
    node = parent_of(node)
  end
end

-- What the bound on the gap is made of (fairness/observe/stated_bound.py): `most` leases that one node
-- held at once, and the `largest` charge of one lease, by the weight of any node that pays it.
local function note_charge(client, charged, weight)
  pool.largest = math.max(pool.largest, charged / weight)
  local group = parent_of(client)
  while group ~= pool do
    pool.largest = math.max(pool.largest, charged / group.weight)
    group = parent_of(group)
  end
end

-- Note in which groups a client stands: weight, name of each, the outermost first. Who moves is a
-- newcomer there, and takes along what waits and runs; what was charged stays where it was.
local function join_groups(client, ...)
  local before, cut = class_for((select(2, ...)))
  local parent = before == '' and '/' or before
  for i = 1, select('#', ...), 2 do
    local weight, name = select(i, ...)
    name = before .. name:sub(cut + 1)
    local group = groups:get(name)
    weight = tonumber(weight)
    if group.weight ~= weight then group.weight, group.changed = weight, true end
    parent = name
  end
  if client.parent == parent then return end
  local old, waiting, running = parent_of(client), client.waiting, client.running
  if waiting > 0 then
    client.waiting = 1
    end_waiting(client)
  end
  add_running(old, -running)
  client.parent = parent
  client.changed = true
  local new = parent_of(client)
  add_running(new, running)
  client.counter = lift(new)
  if waiting > 0 then
    begin_waiting(client, true)
    client.waiting = waiting
  end
end

local function line_of(client)
  client.line = client.line or sorted_set('line', client.name, client.waiting == 0)
  return client.line
end

-- Where a request stands in its client's line: by the client's own priority, then by arrival.
-- Both fit in the 53 bits of a score.
local function place_of(request) return request.priority * 2 ^ 40 + request.seq end

-- Join the line; `returning`: anew, so that who was not backlogged is lifted.
local function stand_in_line(client, request, returning)
  request.queued = NOW
  line_of(client):add(request.id, place_of(request))
  if request.held ~= '' then limits.queue(request, 1) end
  arrivals:add(request.id, request.seq)
  plain_set('routed', request.router):add(request.id, true)
  begin_waiting(client, returning)
end

-- Leave the line, granted or cancelled.
local function dequeue(client, request)
  line_of(client):remove(request.id)
  if request.held ~= '' then limits.queue(request, -1) end
  arrivals:remove(request.id)
  plain_set('routed', request.router):remove(request.id)
  end_waiting(client)
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
                   priority = priority, queued = NOW, charged = 0, reserved = 0, input = 0, cached = 0, output = 0, arrived = false,
                   held = '', price = 1}
  requests:put(id, request)
  return request
end

local function service_of(price, input, cached, output)
  return price * (INPUT_WEIGHT * (input - cached) + CACHED_WEIGHT * cached + OUTPUT_WEIGHT * output)
end

local function count_usage(client, input, cached, output, service)
  client.input, client.cached, client.output = client.input + input, client.cached + cached, client.output + output
  client.service = client.service + service
  local used = used_today(client)
  used.input, used.cached, used.output = used.input + input, used.cached + cached, used.output + output
  used.service = used.service + service
  client.changed = true
end

-- A lease begins: its client has one more running.
local function hold(client, request, replica, attempt, charged, reserved)
  request.replica, request.attempt, request.charged, request.reserved = replica, attempt, charged, reserved
  request.input, request.cached, request.output = 0, 0, 0
  request.changed = true
  plain_set('leases', replica):add(request.id, true)
  add_running(client, 1)
  note_charge(client, charged, request.weight)
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
  add_service(client, charged - request.charged, request.weight)
  count_usage(client, input - request.input, cached - request.cached, output - request.output,
              service_of(request.price, input, cached, output)
                - service_of(request.price, request.input, request.cached, request.output))
  set_totals(request, input, cached, output, charged)
  note_charge(client, charged, request.weight)
end

-- The lease is over; its request is not (requeue) or is (and then `over`).
local function release(client, request)
  plain_set('leases', request.replica):remove(request.id)
  if not request.arrived then unseen:remove(request.id) end
  add_running(client, -1)
end

-- The request is over, and has used so many tokens.
local function over(request, tokens)
  if request.held ~= '' then limits.settle(request, tokens) end
  requests:delete(request.id)
end

-- The groups a client stands in, a line each, the outermost first: weight, counter, name.
local function groups_of(client)
  local told, group = '', parent_of(client)
  while group ~= pool do
    told = text(group.weight) .. ' ' .. text(counter_of(group)) .. ' ' .. group.name .. '\n' .. told
    group = parent_of(group)
  end
  return told
end

-- To explain a grant: what was charged, predicted output tokens, why that replica (explain.lua); under
-- shadow a line more, whose turn it was under VTC.
local function explained(request)
  if not request.explained then return '' end
  return text(request.charged) .. ' ' .. text(request.reserved) .. ' ' .. (request.choice or '0 0 ')
    .. (request.turn and '\n' .. request.turn or '')
end

-- What a router needs to know of a lease.
local function describe(list, request)
  list[#list + 1] = request.id
  list[#list + 1] = lease_of(request)
  list[#list + 1] = request.replica
  list[#list + 1] = offers:get(request.replica).url or ''
  local client = clients:get(request.client)
  list[#list + 1] = text(counter_of(client))
  list[#list + 1] = groups_of(client)
  list[#list + 1] = explained(request)
end

-- Does somebody wait for the answer? (A router that was only slow submits anew.)
local function awaited(router)
  local heard = call('ZSCORE', ROUTERS, router)
  return heard and NOW - tonumber(heard) <= SENDER_TTL / 3 or false
end
