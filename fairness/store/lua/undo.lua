-- The moves by which what was granted is taken back.

-- No more grants until it offers again.
local function withdraw(replica)
  local offer = offers:get(replica)
  if offer.credits > 0 then set_credits(offer, 0) end
end

-- Take back all that a lease was charged.
local function refund(client, request)
  add_service(client, -request.charged, request.weight)
  count_usage(client, -request.input, -request.cached, -request.output,
              -service_of(request.price, request.input, request.cached, request.output))
end

-- The replica has not confirmed that this lease is over: its slot stays taken until it does.
-- payer: "weight price client" if it is to be paid for should it have been used after all.
local function void(request, payer)
  if call('ZSCORE', REPLICAS, request.replica) then voids_of(request.replica):put(lease_of(request), {payer = payer}) end
end

-- A grant that will not be used, as far as is known here: free, and its request is over.
local function take_back(request)
  local client = clients:get(request.client)
  note_end(request, 'taken_back', 0, 0, 0, 0)
  refund(client, request)
  void(request, text(request.weight) .. ' ' .. text(request.price) .. ' ' .. request.client)
  release(client, request)
  over(request, 0)
end
