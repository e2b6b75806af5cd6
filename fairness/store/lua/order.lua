-- Whose turn is it? One function a policy: the next request, or nil.
local orders = {}

-- The backlogged client with the smallest counter, its oldest request (VTC, Algorithm 2); of those
-- in the group with the smallest counter, if that is a group. Ties go to the smaller name.
-- O(log clients), for each level of groups.
local function next_client()
  local name = next_class() or backlogged:lowest()
  while name and name:sub(-1) == '/' do name = backlog_of(groups:get(name)):lowest() end
  return name
end

orders.vtc = function()
  local name = next_client()
  return name and requests:get((line_of(clients:get(name)):lowest()))
end

-- Least counter first: the same. What differs is that nobody is lifted (lift).
orders.lcf = orders.vtc

-- First come, first served: the pool's oldest request. Fairness off; counters go on.
orders.fcfs = function()
  local id = arrivals:lowest()
  return id and requests:get(id)
end

-- The same; grant_all notes whose turn it would have been (shadow.lua).
orders.shadow = orders.fcfs
