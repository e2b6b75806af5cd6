-- After a loss, senders say what they own. Nothing here is charged: what they used was charged
-- before, and counters merge by max.

-- resync_pool V POLICY VERSION: what the sender last knew. The later policy holds; V never
-- falls, and no one who waits stands below where it lets newcomers start. O(backlogged) when V rises.
verbs.resync_pool = function(v, policy, version)
  v, version = tonumber(v), tonumber(version)
  if version > pool.policy_version then pool.policy, pool.policy_version = policy, version end
  if v <= pool.virtual_time then return end
  pool.virtual_time = v
  for _, name in ipairs(call('ZRANGEBYSCORE', backlogged.key, '-inf', '(' .. text(start(pool)))) do
    if name:sub(-1) ~= '/' then clients:want(name) end
  end
  clients:fetch()
  local name, counter = backlogged:lowest()
  while name and counter < start(pool) do
    set_counter(node_named(name), start(pool))
    name, counter = backlogged:lowest()
  end
end

-- resync_client NAME COUNTER: the counter of a client or a group was at least this.
verbs.resync_client = function(name, counter)
  local node = node_named(name)
  begin(node)
  set_counter(node, math.max(tonumber(counter), node.counter))
  parent_of(node).changed = true -- a group whose team is known is known, too
end

-- What this replica was charged for a lease when it was swept.
local function swept_totals(lease)
  local input, cached, output = (call('HGET', key_of('swept', SENDER), lease) or '0 0 0'):match('(%d+) (%d+) (%d+)')
  return {input = tonumber(input), cached = tonumber(cached), output = tonumber(output)}
end

-- resync_lease LEASE CLIENT WEIGHT INPUT CACHED OUTPUT [WEIGHT GROUP]..: this replica holds it. A lease known
-- here takes the larger totals; an unknown one begins, unless a later lease of its request is
-- known. Of two replicas with the same lease (the grant was lost and made again) the one that
-- has seen it keeps it. One that was settled when this replica was swept goes on from there.
verbs.resync_lease = function(lease, name, weight, input, cached, output, ...)
  local id, attempt = split_lease(lease)
  local request = requests:get(id)
  local client = clients:get(request and request.client or name)
  local waits = request and not request.replica
  local swept = swept_totals(lease)
  if request and not (request.replica == SENDER and request.attempt == attempt) then
    if request.attempt > attempt or (request.attempt == attempt and (waits or request.arrived)) then return end
    if not waits then
      refund(client, request)
      void(request, '')
      release(client, request)
      request.replica = nil
    end
  end
  if not request then
    if REPEATED or plain_set('settled', SENDER):has(lease) then return end -- it has ended since
    if client.waiting == 0 then join_groups(client, ...) end
    request = new_request(id, name, '', tonumber(weight), 0, attempt, 0)
    begin(client)
    count_request(client, swept.input, -1)
  end
  if not request.replica then
    hold(client, request, SENDER, attempt, 0, 0)
    if waits then dequeue(client, request) end
  end
  voids_of(SENDER):delete(lease)
  see(request)
  input = math.max(tonumber(input), request.input, swept.input)
  cached = math.max(tonumber(cached), request.cached, swept.cached)
  output = math.max(tonumber(output), request.output, swept.output)
  set_totals(request, input, cached, output, service_of(request.price, input, cached, math.max(output, request.reserved)))
end
