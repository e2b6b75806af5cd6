-- reconcile ID: what became of a request that has waited long? Leased: its grant is told
-- again. Unknown: it is named gone, and the router submits it anew. Waiting: nothing.
verbs.reconcile = function(id)
  local request = requests:get(id)
  if not request then
    reply.gone[#reply.gone + 1] = id
  elseif request.replica then
    describe(reply.grants, request)
  end
end
