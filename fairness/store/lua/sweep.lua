-- sweep: end what the dead have left behind. Bounded work a call; sent every second.
-- A silent replica's leases are settled with what was charged; a silent router's waiting
-- requests are dropped; a grant that no replica has seen in time is taken back.
local SWEEP_LIMIT = 100

-- Some of a set's members, in a repeatable order when that is all of them.
local function some(key)
  local members = call('SRANDMEMBER', key, SWEEP_LIMIT)
  table.sort(members)
  return members
end

local function forget_sender(senders, name)
  call('ZREM', senders, name)
  call('HDEL', CALLS, name) -- should it come back after all, it is told to resync
end

local function sweep_replica(replica)
  call('ZREM', LOAD, replica)
  for _, id in ipairs(some(leases_key(replica))) do
    local request = load(id)
    if request then
      settle(id, request, request.input, request.cached, request.output)
    else
      call('SREM', leases_key(replica), id)
    end
  end
  if call('EXISTS', leases_key(replica)) == 0 then
    forget_sender(REPLICAS, replica)
    call('DEL', replica_key(replica), void_key(replica), settled_key(replica))
  end
end

local function sweep_router(router)
  for _, id in ipairs(some(routed_key(router))) do
    call('SREM', routed_key(router), id) -- leases end by their replica or as unseen
    local request = load(id)
    if request and not request.replica then
      dequeue(request.client, id)
      finish(id, request)
    end
  end
  if call('EXISTS', routed_key(router)) == 0 then forget_sender(ROUTERS, router) end
end

-- When nobody swept for a while, it was this store that was away, not its senders: they get
-- their time anew.
local function forgive_absence()
  local away = NOW - (pool.swept or NOW)
  pool.swept = NOW
  if away <= SENDER_TTL / 2 then return end
  for _, senders in ipairs({ROUTERS, REPLICAS}) do
    for _, sender in ipairs(call('ZRANGE', senders, 0, -1)) do call('ZADD', senders, NOW, sender) end
  end
  for _, lease in ipairs(call('ZRANGE', UNSEEN, 0, -1)) do call('ZINCRBY', UNSEEN, away, lease) end
end

verbs.sweep = function()
  forgive_absence()
  local silent = NOW - SENDER_TTL
  for _, replica in ipairs(call('ZRANGEBYSCORE', REPLICAS, '-inf', silent, 'LIMIT', 0, 4)) do sweep_replica(replica) end
  for _, router in ipairs(call('ZRANGEBYSCORE', ROUTERS, '-inf', silent, 'LIMIT', 0, 4)) do sweep_router(router) end
  for _, lease in ipairs(call('ZRANGEBYSCORE', UNSEEN, '-inf', NOW, 'LIMIT', 0, SWEEP_LIMIT)) do
    local id, request = load_lease(lease)
    call('ZREM', UNSEEN, lease)
    if id then take_back(id, request) end
  end
  drop_idle()
end
