-- After a loss, senders say what they own. Nothing here is charged: what they used was charged
-- before, and counters merge by max.

-- resync_pool V POLICY VERSION: what the sender last knew. The later policy holds; V never
-- falls, and no one who waits stands below it. O(backlogged) when V rises.
verbs.resync_pool = function(v, policy, version)
  v, version = tonumber(v), tonumber(version)
  if version > pool.policy_version then pool.policy, pool.policy_version = policy, version end
  if v <= pool.virtual_time then return end
  pool.virtual_time = v
  for _, client in ipairs(call('ZRANGEBYSCORE', BACKLOGGED, '-inf', '(' .. text(v))) do
    place(client, BACKLOGGED, v)
  end
end

-- resync_client CLIENT COUNTER: its counter was at least this.
verbs.resync_client = function(client, counter)
  local known = standing(client)
  counter = math.max(tonumber(counter), known.counter or 0)
  place(client, known.set or IDLE, counter)
  rest_unless_backlogged(client)
end

-- resync_lease LEASE CLIENT WEIGHT INPUT CACHED OUTPUT: this replica holds it. A lease known
-- here takes the larger totals; an unknown one begins, unless a later lease of its request is
-- known. Of two replicas with the same lease (the grant was lost and made again) the one that
-- has seen it keeps it.
verbs.resync_lease = function(lease, client, weight, input, cached, output)
  local id, attempt = split_lease(lease)
  local request = load(id)
  local waits = request and not request.replica
  if request and not (request.replica == SENDER and request.attempt == attempt) then
    if request.attempt > attempt or (request.attempt == attempt and (waits or request.arrived)) then return end
    if not waits then
      refund(request)
      void(id, request, '')
      release(id, request)
      request.replica = nil
    end
  end
  if not request then
    if REPEATED or call('SISMEMBER', settled_key(SENDER), lease) == 1 then return end -- it has ended since
    pool.seq = pool.seq + 1
    request = {client = client, router = '', weight = tonumber(weight), bytes = 0, seq = pool.seq}
    call('HSET', request_key(id), 'client', client, 'router', '', 'weight', weight, 'bytes', 0, 'seq', pool.seq)
  end
  if not request.replica then
    hold(id, request, SENDER, attempt, 0, 0)
    if waits then dequeue(request.client, id) end
    local known = standing(request.client)
    if not known.set then place(request.client, ACTIVE, virtual_time()) else rest_unless_backlogged(request.client) end
  end
  call('HDEL', void_key(SENDER), lease)
  call('ZREM', UNSEEN, lease)
  call('HSET', request_key(id), 'arrived', 1)
  input, cached = math.max(tonumber(input), request.input), math.max(tonumber(cached), request.cached)
  output = math.max(tonumber(output), request.output)
  set_totals(id, request, input, cached, output, service_of(input, cached, math.max(output, request.reserved)))
end
