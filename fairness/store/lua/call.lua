-- One call: a header (state.lua), then any number of verbs, each as
--   VERB COUNT ARG_1 .. ARG_COUNT
-- Every call is its sender's heartbeat. Result, an array of arrays of strings:
--   grants    request, lease, replica, url, counter (five a grant), the sender's own
--   gone      requests the store does not know (reconcile, requeue)
--   counters  client, counter (pairs): clients of the leases charged or settled here
--   voided    leases taken back from this replica, not yet confirmed
--   unknown   leases charged or settled here that the store should know and does not
--   pool      after the verb of that name (pool.lua)
--   lost      "1" if this sender must resync
local v_before = pool.virtual_time
local at = HEADER + 1
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  verbs[ARGV[at]](unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
grant_all()
if pool.virtual_time > v_before then drop_idle() end
write_usage()

local counters, voided = {}, {}
for client in pairs(reply.counters) do
  counters[#counters + 1] = client
  counters[#counters + 1] = text(standing(client).counter or pool.virtual_time)
end
if KIND == 'replica' then voided = call('HKEYS', void_key(SENDER)) end
write_pool()
return {reply.grants, reply.gone, counters, voided, reply.unknown, reply.pool, {LOST and '1' or '0'}}
