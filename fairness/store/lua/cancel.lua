-- cancel ID: the client left before an answer began. Waiting: leaves the line, free. Leased but
-- not yet seen by its replica: taken back, the slot returns when the replica confirms.
-- Seen: the replica notices the closed connection and settles itself. Idempotent.
verbs.cancel = function(id)
  local request = requests:get(id)
  if not request then return end
  if not request.replica then
    dequeue(clients:get(request.client), request)
    over(request, 0)
  elseif not request.arrived then
    take_back(request)
  end
end
