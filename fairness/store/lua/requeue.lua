-- requeue LEASE: its replica failed before the first byte. The request goes back to its
-- old place in its client's line, refunded and, since it never left for its own sake, without a
-- lift. Idempotent: a lease that is over is ignored; if the request is over with it, it is named
-- gone, and the router submits it anew.
verbs.requeue = function(lease)
  local id, request = load_lease(lease)
  if not id then
    id = split_lease(lease)
    if call('EXISTS', request_key(id)) == 0 then reply.gone[#reply.gone + 1] = id end
    return
  end
  call('ZREM', LOAD, request.replica) -- until it offers again: the next grant goes elsewhere
  refund(request)
  void(id, request, '')
  release(id, request)
  call('HDEL', request_key(id), 'replica', 'arrived', 'input', 'cached', 'output', 'charged', 'reserved')
  if request.router ~= SENDER then -- the lease was resynced by its replica, which knew no router
    call('HSET', request_key(id), 'router', SENDER)
    call('SADD', routed_key(SENDER), id)
  end
  local known = standing(request.client)
  place(request.client, BACKLOGGED, known.counter or virtual_time())
  stand_in_line(request.client, id, request.seq)
end
