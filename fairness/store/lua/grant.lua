-- Late binding: while some replica has a credit and some client waits, lease the next
-- request to the replica with most credits. Runs at the end of every call, so that a
-- credit and a waiting request never part. O(log) a grant.
local function lease_to(replica, client, id, request)
  local attempt = tonumber(request.attempt) + 1
  local pool = call('HMGET', POOL, 'tokens_per_byte', 'longest')
  local tokens = math.ceil(tonumber(pool[1] or '0.25') * tonumber(request.bytes))
  local estimate = INPUT_WEIGHT * math.min(tokens, tonumber(pool[2] or tokens))
  call('HSET', request_key(id), 'replica', replica, 'attempt', attempt, 'charged', text(estimate),
       'input', 0, 'cached', 0, 'output', 0)
  call('HINCRBY', PREFIX .. 'replica:' .. replica, 'granted', 1)
  call('SADD', PREFIX .. 'leases:' .. replica, id)
  call('ZADD', UNSEEN, NOW + GRANT_TTL, lease_of(id, attempt))
  call('HINCRBY', RUNNING, client, 1) -- before the line is left, or an idle client is dropped
  dequeue(client, id)
  add_to_counter(client, estimate / tonumber(request.weight))
  request.replica, request.attempt = replica, attempt
end

local function grant_all()
  local urls, published, next_request = {}, {}, orders[current_policy()]
  while true do
    local best = call('ZREVRANGE', CREDITS, 0, 0, 'WITHSCORES')
    local replica = best[1]
    local client, id
    if replica then client, id = next_request() end
    if not client then break end
    local request = load(id)
    local heard = call('ZSCORE', ROUTERS, request.router)
    if not heard or NOW - tonumber(heard) > SENDER_TTL / 3 then
      -- Its router is dead: nobody waits for the answer. (One that was only slow submits anew.)
      dequeue(client, id)
      finish(id, request)
    else
      set_credits(replica, tonumber(best[2]) - 1)
      lease_to(replica, client, id, request)
      urls[replica] = urls[replica] or call('HGET', PREFIX .. 'replica:' .. replica, 'url')
      local list = reply.grants
      if request.router ~= SENDER then
        published[request.router] = published[request.router] or {}
        list = published[request.router]
      end
      describe(list, id, request, urls[replica])
    end
  end
  for router, grants in pairs(published) do
    call('PUBLISH', PREFIX .. 'grants:' .. router, cjson.encode(grants))
  end
end
