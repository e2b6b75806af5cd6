-- charge LEASE INPUT CACHED OUTPUT: the tokens a lease has used so far, in all.
-- Also the replica's word that it has seen the lease. Idempotent (totals only grow);
-- a lease that is over is ignored. Replies with the client's counter. O(log clients).
verbs.charge = function(lease, input, cached, output)
  local id, request = load_lease(lease)
  if not id or request.replica ~= SENDER then return end
  if call('ZREM', UNSEEN, lease) == 1 then call('HSET', request_key(id), 'arrived', 1) end
  -- Totals only grow while a lease runs, so a repeated or late report changes nothing; the
  -- estimate stands until there is a truth.
  input = math.max(tonumber(input), tonumber(request.input))
  cached = math.max(tonumber(cached), tonumber(request.cached))
  output = math.max(tonumber(output), tonumber(request.output))
  if input > 0 or output > 0 then
    set_charge(id, request, input, cached, output, service_of(input, cached, output))
  end
  reply.counters[request.client] = true
end
