-- charge LEASE INPUT CACHED OUTPUT: the tokens a lease has used so far, in all.
-- Also the replica's word that it has seen the lease. Idempotent (totals only grow);
-- a lease that is over is ignored. Replies with the client's counter. O(log clients).
verbs.charge = function(lease, input, cached, output)
  local id, request = load_lease(lease)
  if not id then return end
  if call('ZREM', UNSEEN, lease) == 1 then call('HSET', request_key(id), 'arrived', 1) end
  charge_to(id, request, tonumber(input), tonumber(cached), tonumber(output), false)
  reply.counters[request.client] = true
end
