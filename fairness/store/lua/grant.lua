-- Late binding: while some replica has a credit and some client waits, lease the next request.
-- Runs at the end of every call, so that a credit and a waiting request never part.
-- O(log) a grant.
local function lease_to(offer, client, request)
  local tokens = math.ceil(pool.tokens_per_byte * request.bytes)
  local reserved = predicted(client)
  local estimate = request.price * (INPUT_WEIGHT * math.min(tokens, pool.longest or tokens) + OUTPUT_WEIGHT * reserved)
  note_choice(offer, request)
  set_credits(offer, offer.credits - 1)
  offer.granted = offer.granted + 1
  hold(client, request, offer.replica, request.attempt + 1, estimate, reserved)
  unseen:add(request.id, NOW + GRANT_TTL)
  dequeue(client, request)
  local used = used_today(client)
  used.waited = used.waited + math.max(0, NOW - request.queued)
  serve_class(outermost_of(client))
  add_service(client, estimate, request.weight)
end

local published = {} -- router -> its grants, made in this call of another

local function grant_all()
  local next_request, choose = orders[pool.policy], placements[PLACEMENT]
  local alive = {}
  while loads:lowest() do
    local request = next_request()
    if not request then break end
    local client, router = clients:get(request.client), request.router
    if alive[router] == nil then alive[router] = awaited(router) end
    if not alive[router] then
      dequeue(client, request)
      over(request, 0)
    else
      local turn = pool.policy == 'shadow' and next_client()
      lease_to(choose(request), client, request)
      if turn then
        note_turn(client.name, turn, request.charged)
        request.turn = turn
      end
      local list = reply.grants
      if router ~= SENDER then
        published[router] = published[router] or {}
        list = published[router]
      end
      describe(list, request)
    end
  end
end
