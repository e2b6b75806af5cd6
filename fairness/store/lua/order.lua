-- Whose turn is it? One function a policy: the next (client, request), or nil.
local orders = {}

-- The backlogged client with the smallest counter, its oldest request (VTC, Algorithm 2).
-- Ties go to the smaller name (the order of a sorted set). O(log clients).
orders.vtc = function()
  local client = call('ZRANGE', BACKLOGGED, 0, 0)[1]
  if client then return client, call('ZRANGE', line_key(client), 0, 0)[1] end
end

-- First come, first served: the pool's oldest request. Fairness off; counters go on.
orders.fcfs = function()
  local id = call('ZRANGE', ARRIVALS, 0, 0)[1]
  if id then return call('HGET', request_key(id), 'client'), id end
end
