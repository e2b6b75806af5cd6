-- requeue LEASE: its replica failed before the first byte. The request goes back to its
-- old place in its client's line, refunded and, since it never left for its own sake, without a
-- lift. Idempotent: a lease that is over is ignored; if the request is over with it, it is named
-- gone, and the router submits it anew.
verbs.requeue = function(lease)
  local request = leased_request(lease)
  if not request then
    local id = split_lease(lease)
    if not requests:get(id) then reply.gone[#reply.gone + 1] = id end
    return
  end
  withdraw(request.replica) -- the next grant goes elsewhere
  local client = clients:get(request.client)
  refund(client, request)
  void(request, '')
  release(client, request)
  request.replica, request.arrived, request.reserved = nil, false, 0
  set_totals(request, 0, 0, 0, 0)
  request.router = SENDER -- the lease may have been resynced by its replica, which knew no router
  stand_in_line(client, request)
end
