-- The state of one pool's global queue, and how a call works on it.
--
-- Theory: read once, decide, write once. Commands cost the server more than all else here, so a
-- call makes few, however many verbs it has:
--   1. What its verbs speak of is read at once (call.lua), the rest when somebody asks for it.
--   2. Verbs work on what was read: on records (records.lua, layouts.lua) and on sets (sets.lua),
--      through the few moves that every verb is made of (moves.lua). Both show what the call has
--      changed.
--   3. All that changed is written when the last grant is made (write_all, moves.lua). What came
--      and went within the call is never written.
-- So an error on the way leaves the store as it was: the call is atomic. Two exceptions: that the
-- sender was heard of, or leaves, is noted at once, and a sweep, which looks at whole sets, writes
-- what came before it.
--
-- KEYS[1]  prefix, "fairlane:5:{pool}"; every other key is derived from it and
--          shares its hash tag, so that a pool lives on one Cluster node.
-- ARGV     header (below), then verbs with their arguments (call.lua).
-- Units    time: milliseconds of the server's clock; counters: service / weight.
--
-- key                  type    what
-- ..:pool              hash    seq, virtual_time, last_left, tokens_per_byte, output_average,
--                              output_error, outputs_seen, policy, policy_version, longest, swept, servers,
--                              oldest_day, shadow_since, owed (classes.lua), largest, most (moves.lua)
-- ..:reasons           set     why the policy was set, each heeded once
-- ..:clients           hash    client -> record: counter, what waits, runs and was used; for good
-- ..:groups            hash    group -> record; for good
-- ..:meters            hash    client or group with limits -> record (limits.lua); until it is full and idle
-- ..:usage:DAY         hash    client -> what it used on a day that is over for it; from oldest_day on
-- ..:shadow            hash    client -> record: grants in and out of turn (shadow.lua)
-- ..:requests          hash    request -> record; until it ends
-- ..:offers            hash    replica -> record: its last offer
-- ..:void:REPLICA      hash    lease taken back -> who pays if it was used after all
--                              ("weight price client", or "" for nobody); until the replica confirms
-- ..:settled:REPLICA   set     leases settled in calls that it has not had a reply to
-- ..:calls             hash    sender -> "number lost": its last call applied, and the call
--                              in which it was first told of a loss (0: none to tell of)
-- ..:ends:ROUTER       list    its explained leases that are over; until it asks, or for ten minutes
-- ..:routers           zset    router -> time last heard of
-- ..:replicas          zset    replica -> time last heard of
-- ..:gone              zset    replica -> time it was swept; for an hour, with what else is kept of it
-- ..:swept:REPLICA     hash    lease -> tokens it was settled with when the replica was swept
-- ..:neighbours        zset    replica of another pool -> time last heard of
--                      What the records say, in the order in which it is asked for:
-- ..:backlogged        zset    client or group -> counter, those with a waiting request in no group
-- ..:backlogged:GROUP  zset    the same of a group's
-- ..:line:CLIENT       zset    request -> arrival number, that client's FIFO
-- ..:arrivals          zset    request -> arrival number, all that wait
-- ..:routed:ROUTER     set     requests it submitted, of those that wait
-- ..:leases:REPLICA    set     requests leased to it
-- ..:unseen            zset    leased request -> time by which its replica must have seen it
-- ..:load              zset    replica -> -credits (granted - limit), those with credits
local PREFIX = KEYS[1] .. ':'
local function key_of(kind, name) return name and PREFIX .. kind .. ':' .. name or PREFIX .. kind end
local POOL, ROUTERS, REPLICAS, CALLS = key_of('pool'), key_of('routers'), key_of('replicas'), key_of('calls')
local NEIGHBOURS, GONE = key_of('neighbours'), key_of('gone')

-- ARGV begins with the call's header.
local KIND, SENDER = ARGV[1], ARGV[2] -- "router", "replica" or "neighbour"; its name
local SENDERS = KIND == 'router' and ROUTERS or KIND == 'replica' and REPLICAS or NEIGHBOURS -- it is one of
local NUMBER, ACKED = tonumber(ARGV[3]), tonumber(ARGV[4]) -- of this call; of the last one it heard a reply to
local INPUT_WEIGHT, OUTPUT_WEIGHT = tonumber(ARGV[5]), tonumber(ARGV[6])
local CACHED_WEIGHT = tonumber(ARGV[7])
local SENDER_TTL, GRANT_TTL = tonumber(ARGV[8]), tonumber(ARGV[9])
local PREDICTOR, SHARE, LEVEL, WINDOW = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local PLACEMENT, BURST = ARGV[14], tonumber(ARGV[15])
local RETENTION = tonumber(ARGV[16]) -- days of usage to keep
local CLASSES = ARGV[17] -- lines "FLOOR GROUP", the highest first; "" for none (classes.lua)
local GIVEN_TIME = ARGV[18] -- instead of the server's clock, for tests; "" otherwise
local HEADER = 18

local call = redis.call
local NOW = tonumber(GIVEN_TIME)
if not NOW then
  local clock = call('TIME')
  NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

-- Lua numbers come back truncated to integers; counters travel as text. (On the way into a
-- command numbers keep all their digits.)
local function text(number) return string.format('%.17g', number) end

-- The pool's few numbers are read once a call and written once, at its end.
local POOL_FIELDS = {'seq', 'virtual_time', 'last_left', 'tokens_per_byte', 'output_average', 'output_error', 'outputs_seen', 'policy',
                     'policy_version', 'longest', 'swept', 'servers', 'oldest_day', 'shadow_since', 'owed', 'largest', 'most'}
local POOL_DEFAULTS = {seq = 0, virtual_time = 0, tokens_per_byte = 0.25, output_average = 0, output_error = 0, outputs_seen = 0, policy = 'vtc', policy_version = 0, servers = 0, largest = 0, most = 0}
local pool, pool_as_read = {}, {} -- as read: or written since
for i, value in ipairs(call('HMGET', POOL, unpack(POOL_FIELDS))) do
  local field = POOL_FIELDS[i]
  if field ~= 'last_left' and field ~= 'policy' and field ~= 'owed' then value = tonumber(value or nil) end
  pool[field] = value or POOL_DEFAULTS[field]
  pool_as_read[field] = pool[field]
end

local function write_pool()
  local changed = {}
  for _, field in ipairs(POOL_FIELDS) do
    if pool[field] ~= pool_as_read[field] then
      changed[#changed + 1] = field
      changed[#changed + 1] = pool[field]
      pool_as_read[field] = pool[field]
    end
  end
  if changed[1] then call('HSET', POOL, unpack(changed)) end
end

-- One command with many arguments, or a few when they would not fit Lua's stack. CHUNK is even:
-- arguments may be pairs.
local CHUNK = 1000
local function call_with_all(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
  end
end
