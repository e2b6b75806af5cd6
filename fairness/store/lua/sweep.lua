-- sweep: end what the dead have left behind. Bounded work a call; sent every second.
-- A silent replica's leases are settled with what was charged; a silent router's waiting
-- requests are dropped; a grant that no replica has seen in time is taken back, and sooner if its
-- router is silent, or one that is cut off would keep credits that others wait for.
--
-- A replica may have been cut off, not dead, and go on with what it holds. So what it was charged for
-- each lease is kept, with the number of its last call: should it be back within the hour, each lease
-- goes on from there (resync_lease), and what it used alone is charged. Of a neighbour the number of its
-- last call is kept as long.
--
-- It looks at whole sets as they are stored, so before each look what has changed is written.
local SWEEP_LIMIT = 100
local HOUR = 3600000

local function write_and_forget()
  write_all()
  for _, view in ipairs(hashes) do view:forget() end
  for _, view in ipairs(sets) do view:forget() end
end

-- Some of a set's members, in a repeatable order when that is all of them.
local function some(key)
  local members = call('SRANDMEMBER', key, SWEEP_LIMIT)
  table.sort(members, function(a, b) return before(0, a, 0, b) end)
  return members
end

local function forget_sender(senders, name)
  call('ZREM', senders, name)
  call('HDEL', CALLS, name) -- should it come back after all, it is told to resync
end

local function sweep_replica(replica)
  local left = tonumber(call('ZSCORE', REPLICAS, replica)) == 0
  withdraw(replica)
  for _, id in ipairs(some(key_of('leases', replica))) do
    local request = requests:get(id)
    if not left then call('HSET', key_of('swept', replica), lease_of(request), request.input .. ' ' .. request.cached .. ' ' .. request.output) end
    settle(request, request.input, request.cached, request.output)
  end
  write_and_forget()
  if call('EXISTS', key_of('leases', replica)) == 0 then
    call('ZREM', REPLICAS, replica)
    call('HDEL', offers.key, replica)
    call('DEL', key_of('void', replica)) -- used after all, they are unknown leases like any other
    call('ZADD', GONE, NOW - (left and HOUR or 0), replica)
  end
end

local function forget_replica(replica)
  if call('ZSCORE', REPLICAS, replica) then call('ZREM', GONE, replica) else
    forget_sender(GONE, replica)
    call('DEL', key_of('settled', replica))
  end
  call('DEL', key_of('swept', replica))
end

local function sweep_router(router)
  for _, id in ipairs(some(key_of('routed', router))) do -- leases end by their replica or as unseen
    local request = requests:get(id)
    dequeue(clients:get(request.client), request)
    over(request, 0)
  end
  write_and_forget()
  if call('EXISTS', key_of('routed', router)) == 0 then forget_sender(ROUTERS, router) end
end

-- When nobody swept for a while, it was this store that was away, not its senders: they get
-- their time anew.
local function forgive_absence()
  local away = NOW - (pool.swept or NOW)
  pool.swept = NOW
  if away <= SENDER_TTL / 2 then return end
  for _, senders in ipairs({ROUTERS, REPLICAS, NEIGHBOURS}) do
    for _, sender in ipairs(call('ZRANGE', senders, 0, -1)) do call('ZADD', senders, NOW, sender) end
  end
  for _, id in ipairs(call('ZRANGE', unseen.key, 0, -1)) do call('ZINCRBY', unseen.key, away, id) end
end

-- Days that are kept no longer. Who has used nothing since has its last day in its record, where
-- it is not looked at.
local DAYS_LIMIT = 100

local function forget_old_days()
  local oldest = math.min(TODAY - RETENTION + 1, pool.oldest_day + DAYS_LIMIT)
  for day = pool.oldest_day, oldest - 1 do call('UNLINK', key_of('usage', day)) end
  pool.oldest_day = math.max(pool.oldest_day, oldest)
end

verbs.sweep = function()
  write_and_forget()
  forgive_absence()
  forget_old_days()
  limits.tidy()
  local silent = NOW - SENDER_TTL
  for _, replica in ipairs(call('ZRANGEBYSCORE', REPLICAS, '-inf', silent, 'LIMIT', 0, 4)) do sweep_replica(replica) end
  for _, router in ipairs(call('ZRANGEBYSCORE', ROUTERS, '-inf', silent, 'LIMIT', 0, 4)) do sweep_router(router) end
  for _, replica in ipairs(call('ZRANGEBYSCORE', GONE, '-inf', NOW - HOUR, 'LIMIT', 0, 4)) do forget_replica(replica) end
  for _, neighbour in ipairs(call('ZRANGEBYSCORE', NEIGHBOURS, '-inf', NOW - HOUR, 'LIMIT', 0, 4)) do
    forget_sender(NEIGHBOURS, neighbour)
  end
  local some_silent = call('ZCOUNT', ROUTERS, '-inf', '(' .. text(NOW - SENDER_TTL / 3)) > 0
  for _, id in ipairs(call('ZRANGEBYSCORE', unseen.key, '-inf', some_silent and '+inf' or NOW, 'LIMIT', 0, SWEEP_LIMIT)) do
    local request = requests:get(id)
    if tonumber(call('ZSCORE', unseen.key, id)) <= NOW or not awaited(request.router) then take_back(request) end
  end
end
