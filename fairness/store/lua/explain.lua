-- explain ID STANDING: the router keeps the story of this request. From now on its grant says what it was
-- charged and why that replica, and its end is noted for the router (`ends`). STANDING 1: if it waits when
-- the call is over, the reply says who is before it. Idempotent.
-- Costs nothing for requests that are not explained. A standing: O(log clients) for each level of groups,
-- two or three commands; an end: two commands for each call and router.
local AHEAD_NAMED = 5 -- of those before it, the first in turn
local ENDS_KEPT, ENDS_TTL_S = 5000, 600 -- of one router that does not ask

local stand_asked, ended = {}, {}

speaks_of.explain = {request = 1}
verbs.explain = function(id, standing)
  local request = requests:get(id)
  if not request then return end
  request.explained, request.changed = true, true
  if standing == '1' then stand_asked[#stand_asked + 1] = id end
end

-- Why this replica: how many credits it had, and who came next ("" if nobody else had any).
local function note_choice(offer, request)
  if not request.explained then return end
  loads:remove(offer.replica)
  local other, score = loads:lowest()
  loads:add(offer.replica, -offer.credits)
  request.choice = string.format('%d %d %s', offer.credits, other and -score or 0, other or '')
end

-- A lease is over. how: settled, lost (with its replica), taken_back (unused).
local function note_end(request, how, service, input, cached, output)
  if not request.explained or request.router == '' then return end
  local list = ended[request.router] or {}
  ended[request.router] = list
  list[#list + 1] = string.format('%s %d %d %d %s %s %s', how, input, cached, output, text(request.charged), text(service),
                                  lease_of(request))
end

-- When all is written: tell the routers' lists.
local function write_ends()
  for router, list in pairs(ended) do
    local key = key_of('ends', router)
    if call('RPUSH', key, unpack(list)) > ENDS_KEPT then call('LTRIM', key, -ENDS_KEPT, -1) end
    call('EXPIRE', key, ENDS_TTL_S)
  end
end

-- Among those it stands with, a client or group: name, counter, how many are before it, the first of them.
local function place_among(node)
  local key = backlog_of(parent_of(node)).key
  local rank, first = call('ZRANK', key, node.name) or 0, {}
  if rank > 0 then
    local found = call('ZRANGE', key, 0, math.min(rank, AHEAD_NAMED) - 1, 'WITHSCORES')
    for i = 1, #found, 2 do first[#first + 1] = {found[i], text(tonumber(found[i + 1]))} end
  end
  return {node.name, text(node.counter), rank, first}
end

-- The same of a class: what it is owed, and the waiting classes before it with what they are owed.
local function place_of_class(node)
  local own, first = class_key(node.name), {}
  for _, name in ipairs(class_names) do
    if class_waits(name) and class_key(name) < own then first[#first + 1] = {name, text(owed[name] or 0)} end
  end
  return {node.name, text(owed[node.name] or 0), #first, first}
end

-- When all is written: policy, requests before it (its own client's; under fcfs and shadow all that came
-- before), levels (the innermost first; none under fcfs), its own client's requests before it.
local function standings()
  local told = {}
  for _, id in ipairs(stand_asked) do
    local request = requests:get(id)
    if request and not request.replica then
      local client, levels = clients:get(request.client), {}
      local of_client = call('ZRANK', line_of(client).key, request.id) or 0
      local before_it = of_client
      if orders[pool.policy] == orders.fcfs then before_it = call('ZRANK', arrivals.key, request.id) or 0 end
      if pool.policy ~= 'fcfs' then
        local node = client
        while node ~= pool do
          levels[#levels + 1] = (class_ranks[node.name] and place_of_class or place_among)(node)
          node = parent_of(node)
        end
      end
      told[#told + 1] = id
      told[#told + 1] = cjson.encode({pool.policy, before_it, levels, of_client})
    end
  end
  return told
end
