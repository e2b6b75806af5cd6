-- charge LEASE INPUT CACHED OUTPUT: the tokens a lease has used so far, in all.
-- Also the replica's word that it has seen the lease. Idempotent (totals only grow);
-- a lease that is over is ignored. Replies with the client's counter. O(log clients).

-- The lease, if this replica holds it. Else, is it over or was it forgotten? The store knows
-- a later lease of the request, or took this one back, or settled it in a call that the replica
-- had no reply to: over. Otherwise it is named unknown.
local function held(lease)
  if LOST then return end -- what the replica will say of it when it resyncs counts
  local id, request = load_lease(lease)
  if id and request.replica == SENDER then return id, request end
  if call('HEXISTS', void_key(SENDER), lease) == 1 or call('SISMEMBER', settled_key(SENDER), lease) == 1 then return end
  local attempt
  id, attempt = split_lease(lease)
  request = request or load(id)
  if not request or request.attempt < attempt or (request.attempt == attempt and request.replica and not request.arrived) then
    reply.unknown[#reply.unknown + 1] = lease
  end
end

verbs.charge = function(lease, input, cached, output)
  local id, request = held(lease)
  if not id then return end
  if not request.arrived then
    request.arrived = '1'
    call('ZREM', UNSEEN, lease)
    call('HSET', request_key(id), 'arrived', 1)
  end
  -- Totals only grow while a lease runs, so a repeated or late report changes nothing; the
  -- estimate stands until there is a truth, and the prediction until it is exceeded.
  input = math.max(tonumber(input), request.input)
  cached = math.max(tonumber(cached), request.cached)
  output = math.max(tonumber(output), request.output)
  if input > 0 or output > 0 then
    set_charge(id, request, input, cached, output, service_of(input, cached, math.max(output, request.reserved)))
  end
  reply.counters[request.client] = true
end
