-- Whose turn is it? One function a policy: the next request, or nil.
local orders = {}

-- The backlogged client with the smallest counter, its oldest request (VTC, Algorithm 2).
-- Ties go to the smaller name. O(log clients).
orders.vtc = function()
  local name = backlogged:lowest()
  return name and requests:get((line_of(clients:get(name)):lowest()))
end

-- Least counter first: the same. What differs is that nobody is lifted (lift).
orders.lcf = orders.vtc

-- First come, first served: the pool's oldest request. Fairness off; counters go on.
orders.fcfs = function()
  local id = arrivals:lowest()
  return id and requests:get(id)
end
