-- One call: a header (state.lua), then any number of verbs, each as
--   VERB COUNT ARG_1 .. ARG_COUNT
-- Every call is its sender's heartbeat. Result, an array of arrays of strings:
--   grants    request, lease, replica, url, counter, groups, explained (seven a grant), the sender's own
--   gone      requests the store does not know (reconcile, requeue)
--   counters  client, counter (pairs): clients of the leases charged or settled here, and the groups
--             they stand in
--   voided    leases taken back from this replica, not yet confirmed
--   unknown   leases charged or settled here that the store should know and does not
--   pool      after the verb of that name (pool.lua)
--   lost      "1" if this sender must resync
--   standings request, standing (explain.lua): of those asked about that wait
--   ends      leases that are over, after the verb of that name (ends.lua)
--   refused   request, client or group, name of the limit, limit, remaining, retry_after_ms (six each)
--   rates     request, then limit, remaining, reset_ms of requests and of tokens (seven each)

-- Read at once what the verbs speak of, and then the clients of those requests.
local function read_all()
  local named, ending = {}, {}
  local at = HEADER + 1
  while at <= #ARGV do
    local of = speaks_of[ARGV[at]]
    if of then
      local id = of.lease and split_lease(ARGV[at + 1 + of.lease]) or of.request and ARGV[at + 1 + of.request]
      if id then
        requests:want(id)
        named[#named + 1] = id
        ending[id] = ending[id] or of.ends
      end
      if of.client then clients:want(ARGV[at + 1 + of.client]) end
      if of.terms then limits.want_terms(at, 1 + tonumber(ARGV[at + 1])) end
    end
    at = at + 2 + tonumber(ARGV[at + 1])
  end
  requests:fetch()
  for _, id in ipairs(named) do
    local request = requests:get(id)
    if request then
      clients:want(request.client)
      if ending[id] and request.held ~= '' then limits.want(request) end
    end
  end
  if pool.last_left and pool.last_left:sub(-1) ~= '/' then clients:want(pool.last_left) end
  clients:fetch()
  if rawget(limits, 'fetch') then limits.fetch() end
  if class_names[1] then
    for _, name in ipairs(class_names) do groups:want(name) end
    groups:fetch()
  end
  if KIND == 'replica' then voids_of(SENDER):all() end
end

setmetatable(limits, {__index = function(_, name)
  define_limits()
  return rawget(limits, name)
end})
setmetatable(verbs, {__index = function(_, name)
  local define = speaks_of[name] and define_limits or define_rare_verbs
  define()
  return rawget(verbs, name) or error('unknown verb ' .. name)
end})
read_all()
local at = HEADER + 1
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  verbs[ARGV[at]](unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
grant_all()
write_all()
write_ends()
for router, grants in pairs(published) do
  call('PUBLISH', key_of('grants', router), cjson.encode(grants))
end

local counters, voided = {}, {}
local told = {[pool] = true}
for name in pairs(reply.counters) do
  local node = clients:get(name)
  while not told[node] do
    told[node] = true
    counters[#counters + 1] = node.name
    counters[#counters + 1] = text(counter_of(node))
    node = parent_of(node)
  end
end
if KIND == 'replica' then
  for lease, void in pairs(voids_of(SENDER):all()) do
    if void then voided[#voided + 1] = lease end
  end
end
return {reply.grants, reply.gone, counters, voided, reply.unknown, reply.pool, {LOST and '1' or '0'}, standings(), reply.ends,
        reply.refused or {}, reply.rates or {}}
