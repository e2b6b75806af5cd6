-- How many tokens will a request make? One function a predictor, of its client's last output
-- lengths (oldest first), as fairness/prediction.py has them.
local predictors = {}

predictors.none = function() return 0 end

predictors.moving_average = function(history)
  local sum, from = 0, math.max(1, #history - WINDOW + 1)
  for i = from, #history do sum = sum + history[i] end
  return #history > 0 and sum / (#history - from + 1) or 0
end

predictors.quantile = function(history)
  if #history == 0 then return 0 end
  table.sort(history)
  return history[math.max(1, math.ceil(LEVEL * #history))]
end

local function outputs_of(client)
  local history = {}
  for length in (call('HGET', OUTPUTS, client) or ''):gmatch('%d+') do history[#history + 1] = tonumber(length) end
  return history
end

-- Output tokens to charge in advance.
local function predicted(client)
  if WINDOW == 0 then return 0 end
  return SHARE * predictors[PREDICTOR](outputs_of(client))
end

-- Kept as long as the client is known (state.lua): O(WINDOW) a settled request, bounded memory.
local function remember_output(client, output)
  if WINDOW == 0 or not standing(client).set then return end
  local history = outputs_of(client)
  history[#history + 1] = output
  call('HSET', OUTPUTS, client, table.concat(history, ' ', math.max(1, #history - WINDOW + 1)))
end
