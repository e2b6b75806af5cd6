-- Late binding: while some replica has a credit and some client waits, lease the next request.
-- Runs at the end of every call, so that a credit and a waiting request never part.
-- O(log) a grant.
local function lease_to(replica, client, id, request)
  local tokens = math.ceil(pool.tokens_per_byte * request.bytes)
  local reserved = predicted(client)
  local estimate = INPUT_WEIGHT * math.min(tokens, pool.longest or tokens) + OUTPUT_WEIGHT * reserved
  hold(id, request, replica, request.attempt + 1, estimate, reserved)
  call('HINCRBY', replica_key(replica), 'granted', 1)
  call('ZADD', UNSEEN, NOW + GRANT_TTL, lease_of(id, request.attempt))
  dequeue(client, id)
  add_to_counter(client, estimate / request.weight)
end

-- Does somebody wait for the answer? (A router that was only slow submits anew.)
local function awaited(router)
  local heard = call('ZSCORE', ROUTERS, router)
  return heard and NOW - tonumber(heard) <= SENDER_TTL / 3
end

local function grant_all()
  local next_request, choose = orders[pool.policy], placements[PLACEMENT]
  local urls, alive, published = {}, {}, {}
  while call('EXISTS', LOAD) == 1 do
    local client, id = next_request()
    if not client then break end
    local request = load(id)
    local router = request.router
    if alive[router] == nil then alive[router] = awaited(router) end
    if not alive[router] then
      dequeue(client, id)
      finish(id, request)
    else
      local replica, credits = choose(request)
      set_credits(replica, credits - 1)
      lease_to(replica, client, id, request)
      urls[replica] = urls[replica] or call('HGET', replica_key(replica), 'url')
      local list = reply.grants
      if router ~= SENDER then
        published[router] = published[router] or {}
        list = published[router]
      end
      describe(list, id, request, urls[replica])
    end
  end
  for router, grants in pairs(published) do
    call('PUBLISH', PREFIX .. 'grants:' .. router, cjson.encode(grants))
  end
end
