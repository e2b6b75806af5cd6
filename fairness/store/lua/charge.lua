-- charge LEASE INPUT CACHED OUTPUT: the tokens a lease has used so far, in all.
-- Also the replica's word that it has seen the lease. Idempotent (totals only grow);
-- a lease that is over is ignored. Replies with the client's counter. O(log clients).

-- The request, if this replica holds the lease. Else, is it over or was it forgotten? The store
-- knows a later lease of the request, or took this one back, or settled it in a call that the
-- replica had no reply to: over. Otherwise it is named unknown.
local function held(lease)
  if LOST then return end -- what the replica will say of it when it resyncs counts
  local request = leased_request(lease)
  if request and request.replica == SENDER then return request end
  if voids_of(SENDER):get(lease) or plain_set('settled', SENDER):has(lease) then return end
  local id, attempt = split_lease(lease)
  request = requests:get(id)
  if not request or request.attempt < attempt or (request.attempt == attempt and request.replica and not request.arrived) then
    reply.unknown[#reply.unknown + 1] = lease
  end
end

speaks_of.charge = {lease = 1}
verbs.charge = function(lease, input, cached, output)
  local request = held(lease)
  if not request then return end
  if not request.arrived then see(request) end
  -- Totals only grow while a lease runs, so a repeated or late report changes nothing; the
  -- estimate stands until there is a truth, and the prediction until it is exceeded.
  input = math.max(tonumber(input), request.input)
  cached = math.max(tonumber(cached), request.cached)
  output = math.max(tonumber(output), request.output)
  if input > 0 or output > 0 then
    local charged = service_of(request.price, input, cached, math.max(output, request.reserved))
    set_charge(clients:get(request.client), request, input, cached, output, charged)
  end
  reply.counters[request.client] = true
end
