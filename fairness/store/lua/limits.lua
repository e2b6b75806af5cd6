-- Limits of levels (fairness/limits.py has the theory; memory_limits.py does the same).
--
-- A level is a client or a group that has limits; each has a meter. What a request has reserved is
-- kept with it (`held`), and settled where it ends (over, moves.lua). All of this is made when the
-- first request with limits is met: calls without pay nothing for it.
--
-- submit_limited TERMS and what `submit` has. TERMS: the tokens that the answer may have at most (-1:
--   not said), 1 if the request was let in before, then five limits (below; 0: none) for the client
--   and for each of its groups. O(levels).
-- ended ID: the answer has come to its end: the request is in flight no more, its tokens are to come.
local MINUTE, SLACK, COUNT_RETRY = 60000, 1e-6, 1000
local REQUESTS, TOKENS, IN_FLIGHT, QUEUED, BYTES = 1, 2, 3, 4, 5
local NAMES = {'requests_per_minute', 'tokens_per_minute', 'concurrency', 'queued_requests', 'queued_bytes'}

-- A meter: always a record, of an unknown one too.
-- at: when it was last written; requests, tokens: spent by then, less what was refilled;
-- request_rate, token_rate: its limits a minute (0: none); in_flight, queued, bytes: under way.
local METER = '<dddddI4I4I8'

local function left(spent, rate, elapsed)
  return rate > 0 and math.max(0, spent - rate * elapsed / MINUTE) or 0
end

local function decode_meter(raw, name)
  if not raw then
    return {name = name, unknown = true, at = NOW, requests = 0, tokens = 0, request_rate = 0, token_rate = 0, in_flight = 0,
            queued = 0, bytes = 0}
  end
  local at, requests, tokens, request_rate, token_rate, in_flight, queued, bytes = struct.unpack(METER, raw)
  local elapsed = math.max(0, NOW - at)
  return {name = name, at = at, requests = left(requests, request_rate, elapsed), tokens = left(tokens, token_rate, elapsed),
          request_rate = request_rate, token_rate = token_rate, in_flight = in_flight, queued = queued, bytes = bytes}
end

local function encode_meter(m)
  return struct.pack(METER, NOW, m.requests, m.tokens, m.request_rate, m.token_rate, m.in_flight, m.queued, m.bytes)
end

local meters = records(key_of('meters'), decode_meter, encode_meter)

local function meter_at(node)
  local meter = meters:get(node)
  meter.changed = true
  return meter
end

-- Its meter by the limits of now on.
local function meter_of(level)
  local meter = meter_at(level.node)
  meter.request_rate, meter.token_rate = level[REQUESTS], level[TOKENS]
  if meter.request_rate == 0 then meter.requests = 0 end
  if meter.token_rate == 0 then meter.tokens = 0 end
  return meter
end

-- What a request has reserved: tokens, is it in flight (1), then the names of the levels.
local HELD, NODE = '<dB', '<I2c0'

local function held_by(request)
  local tokens, in_flight, at = struct.unpack(HELD, request.held)
  local nodes = {}
  while at <= #request.held do nodes[#nodes + 1], at = struct.unpack(NODE, request.held, at) end
  return tokens, in_flight, nodes
end

local function hold_at(request, tokens, in_flight, nodes)
  local held = {struct.pack(HELD, tokens, in_flight)}
  for _, node in ipairs(nodes) do held[#held + 1] = struct.pack(NODE, #node, node) end
  request.held, request.changed = table.concat(held), true
end

-- A group's name without the class it is in (classes.lua); nil for a class: limits hold across classes.
local function within_class(group)
  local within = group:match('^class:[^/]*/(.*)$')
  if within == '' then return nil end
  return within or group
end

-- The levels of TERMS that have limits.
local function read_terms(terms, name, ...)
  local numbers, nodes = {}, {name}
  for number in terms:gmatch('%S+') do numbers[#numbers + 1] = tonumber(number) end
  for i = 2, select('#', ...), 2 do nodes[#nodes + 1] = within_class((select(i, ...))) end
  local levels = {}
  for i, node in ipairs(nodes) do
    local level, limited = {node = node}, false
    for limit = REQUESTS, BYTES do
      level[limit] = numbers[2 + 5 * (i - 1) + limit]
      limited = limited or level[limit] > 0
    end
    if limited then levels[#levels + 1] = level end
  end
  return numbers[1], numbers[2] == 1, levels
end

local function expected_tokens(size, max_output)
  local input, output = math.ceil(pool.tokens_per_byte * size), math.ceil(pool.output_average)
  if max_output >= 0 then output = math.min(output, max_output) end
  return math.min(input, pool.longest or input) + output
end

-- Which limit has no room? node, name, limit, remaining, milliseconds until it has; of several the
-- one that takes longest.
local function refusal(levels, tokens, size)
  local found
  local function note(level, kind, spent, wait)
    if found and found[5] >= wait then return end
    found = {level.node, NAMES[kind], level[kind], math.max(0, math.floor(level[kind] - spent + SLACK)), wait}
  end
  local function rate(level, kind, spent, needed)
    local limit = level[kind]
    local excess = spent + math.min(needed, limit) - limit
    if limit > 0 and excess > SLACK then note(level, kind, spent, math.ceil(excess * MINUTE / limit)) end
  end
  local function count(level, kind, sum, more)
    if level[kind] > 0 and sum + more > level[kind] then note(level, kind, sum, COUNT_RETRY) end
  end
  for _, level in ipairs(levels) do
    local meter = meter_of(level)
    rate(level, REQUESTS, meter.requests, 1)
    rate(level, TOKENS, meter.tokens, tokens)
    count(level, IN_FLIGHT, meter.in_flight, 1)
    count(level, QUEUED, meter.queued, 1)
    count(level, BYTES, meter.bytes, size)
  end
  return found
end

local function count_queued(nodes, count, size)
  for _, node in ipairs(nodes) do
    local meter = meter_at(node)
    meter.queued = math.max(0, meter.queued + count)
    meter.bytes = math.max(0, meter.bytes + count * size)
  end
end

local function reserve(request, levels, tokens)
  local nodes = {}
  for _, level in ipairs(levels) do
    local meter = meter_of(level)
    if meter.request_rate > 0 then meter.requests = meter.requests + 1 end
    if meter.token_rate > 0 then meter.tokens = meter.tokens + tokens end
    meter.in_flight = meter.in_flight + 1
    nodes[#nodes + 1] = level.node
  end
  hold_at(request, tokens, 1, nodes)
  count_queued(nodes, 1, request.bytes)
end

-- Request; limit, remaining, milliseconds until it is full of the tightest limit of requests (0: there
-- is none), and of tokens.
local function tell_standing(id, levels)
  local told = {id, 0, 0, 0, 0, 0, 0}
  local function note(at, limit, spent)
    local remaining = math.max(0, math.floor(limit - spent + SLACK))
    if limit > 0 and (told[at] == 0 or remaining < told[at + 1]) then
      told[at], told[at + 1], told[at + 2] = limit, remaining, math.ceil(spent * MINUTE / limit)
    end
  end
  for _, level in ipairs(levels) do
    local meter = meter_of(level)
    note(2, level[REQUESTS], meter.requests)
    note(5, level[TOKENS], meter.tokens)
  end
  reply.rates = reply.rates or {}
  for _, part in ipairs(told) do reply.rates[#reply.rates + 1] = part end
end

verbs.submit_limited = function(terms, id, name, weight, bytes, attempt, priority, ...)
  if REPEATED or requests:get(id) then return end
  local size = tonumber(bytes)
  local max_output, admitted, levels = read_terms(terms, name, ...)
  local tokens = expected_tokens(size, max_output)
  local why = not admitted and refusal(levels, tokens, size)
  if why and why[2]:sub(1, 6) == 'queued' and loads:lowest() then
    grant_all() -- they wait for nothing but the end of this call
    why = refusal(levels, tokens, size)
  end
  if why then
    reply.refused = reply.refused or {}
    reply.refused[#reply.refused + 1] = id
    for _, part in ipairs(why) do reply.refused[#reply.refused + 1] = part end
  else
    verbs.submit(id, name, weight, bytes, attempt, priority, ...)
    reserve(requests:get(id), levels, tokens)
  end
  tell_standing(id, levels)
end

verbs.ended = function(id)
  local request = requests:get(id)
  if request and request.held ~= '' then limits.end_flight(request) end
end

-- What a verb speaks of is read with what others do: TERMS and the levels they are for.
function limits.want_terms(at, count)
  meters:want(ARGV[at + 3])
  for i = at + 9, at + count, 2 do
    local node = within_class(ARGV[i])
    if node then meters:want(node) end
  end
end

function limits.want(request)
  local _, _, nodes = held_by(request)
  for _, node in ipairs(nodes) do meters:want(node) end
end

function limits.fetch() meters:fetch() end

-- It waits (1), or waits no more (-1).
function limits.queue(request, count)
  local _, _, nodes = held_by(request)
  count_queued(nodes, count, request.bytes)
end

function limits.end_flight(request)
  local tokens, in_flight, nodes = held_by(request)
  if in_flight == 0 then return end
  for _, node in ipairs(nodes) do
    local meter = meter_at(node)
    meter.in_flight = math.max(0, meter.in_flight - 1)
  end
  hold_at(request, tokens, 0, nodes)
end

-- It is over and has used so many tokens; with none it was free.
function limits.settle(request, used)
  local tokens, in_flight, nodes = held_by(request)
  for _, node in ipairs(nodes) do
    local meter = meter_at(node)
    meter.in_flight = math.max(0, meter.in_flight - in_flight)
    if meter.token_rate > 0 then meter.tokens = math.max(0, meter.tokens + used - tokens) end
    if used == 0 then meter.requests = math.max(0, meter.requests - 1) end
  end
end

-- A request that was taken to be free has used tokens after all.
function limits.pay(node, tokens)
  while node ~= pool do
    local meter = meters:get(node.name)
    if not meter.unknown or meter.changed then
      meter.changed = true
      if meter.request_rate > 0 then meter.requests = meter.requests + 1 end
      if meter.token_rate > 0 then meter.tokens = meter.tokens + tokens end
    end
    node = parent_of(node)
  end
end

-- Drop meters that say nothing, of some that are stored: nothing is in flight, and what was spent has
-- been refilled for a minute.
local TIDY_LIMIT = 20

function limits.tidy()
  local found = call('HRANDFIELD', meters.key, TIDY_LIMIT, 'WITHVALUES')
  for i = 1, #found, 2 do
    local meter = decode_meter(found[i + 1], found[i])
    if meter.in_flight == 0 and meter.requests == 0 and meter.tokens == 0 and NOW - meter.at >= MINUTE then
      call('HDEL', meters.key, found[i])
    end
  end
end
