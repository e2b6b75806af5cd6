-- One call: a header (state.lua), then any number of verbs, each as
--   VERB COUNT ARG_1 .. ARG_COUNT
-- Every call is its sender's heartbeat. Result, an array of five arrays of strings:
--   grants    request, lease, replica, url, counter (five a grant), the sender's own
--   gone      requests the store does not know (reconcile, requeue)
--   counters  client, counter (pairs): clients of the leases charged or settled here
--   voided    leases taken back from this replica, not yet confirmed
--   replicas  after the verb of that name: the policy, then replica, url, taking (triples)
call('ZADD', KIND == 'router' and ROUTERS or REPLICAS, NOW, SENDER)

local at = HEADER + 1
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  verbs[ARGV[at]](unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
grant_all()

for client, sum in pairs(usage) do
  local before = call('HGET', USAGE, client) or '0 0 0 0'
  local input, cached, output, service = before:match('(%S+) (%S+) (%S+) (%S+)')
  call('HSET', USAGE, client, string.format('%d %d %d %.17g', tonumber(input) + sum[1],
       tonumber(cached) + sum[2], tonumber(output) + sum[3], tonumber(service) + sum[4]))
end

local counters = {}
for client in pairs(reply.counters) do
  counters[#counters + 1] = client
  counters[#counters + 1] = text(find(client) or tonumber(call('HGET', POOL, 'virtual_time') or '0'))
end
if KIND == 'replica' then reply.voided = call('SMEMBERS', PREFIX .. 'void:' .. SENDER) end
return {reply.grants, reply.gone, counters, reply.voided, reply.replicas}
