-- How many tokens will a request make? One function a predictor, of its client's last output
-- lengths (oldest first) and the pool's average, as fairness/prediction.py has them.
local POOL_WINDOW = 300
local predictors = {}

predictors.none = function() return 0 end

predictors.pool_average = function() return pool.output_average end

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

local LENGTH, LENGTH_BYTES = '<I4', 4

-- Output tokens to charge in advance. An unknown client has no history.
local function predicted(client)
  local history = {}
  if WINDOW > 0 then
    for at = 1, #client.outputs, LENGTH_BYTES do history[#history + 1] = struct.unpack(LENGTH, client.outputs, at) end
  end
  return SHARE * predictors[PREDICTOR](history)
end

-- The client's are kept as long as it is known: bounded memory. reserved: what was charged in advance.
local function remember_output(client, output, reserved)
  pool.outputs_seen = math.min(pool.outputs_seen + 1, POOL_WINDOW)
  if SHARE > 0 and PREDICTOR ~= 'none' then
    local error = math.abs(output - reserved / SHARE)
    pool.output_error = pool.output_error + (error - pool.output_error) / pool.outputs_seen
  end
  pool.output_average = pool.output_average + (output - pool.output_average) / pool.outputs_seen
  if WINDOW == 0 or not known(client) then return end
  client.outputs = (client.outputs .. struct.pack(LENGTH, output)):sub(-WINDOW * LENGTH_BYTES)
  client.changed = true
end
