-- The directory in the store, and what all its scripts share. A script is this file and one verb's.
--
-- KEYS[1]  prefix, "fairlane:directory:1:{directory}"; every other key is derived from it and
--          shares its hash tag, so that the directory lives on one Cluster node. It has a version
--          of its own: keys must outlive a change of the global queue's layout.
-- ARGV     of verbs that change something: BY (id of the admin key), FROM (where the request came
--          from), DETAIL (JSON, for people); then the verb's own.
-- Result   of those: {'ok', the record's fields and values}, or {why not}. What is refused has
--          changed nothing.
-- Units    time: milliseconds since 1970, of the server's clock.
--
-- key               type    what
-- ..:clients        zset    names of all clients, score 0: in the order of their bytes
-- ..:client:NAME    hash    weight, group, enabled, created, class, limits (JSON; may be missing)
-- ..:groups         zset    paths of all groups, likewise
-- ..:group:PATH     hash    weight, created, limits (likewise)
-- ..:members:PATH   zset    clients directly in a group (which the configuration may have)
-- ..:keys:CLIENT    zset    ids of its keys -> when they were made
-- ..:key:ID         hash    hash, client, label, created, lifetime, expires, revoked (0: never)
-- ..:ended          zset    sessions of the dashboard ended early -> when they would have expired, s
-- ..:log            stream  what was changed: verb, subject, key, by, from, detail
local PREFIX = KEYS[1] .. ':'
local function key_of(kind, name) return name and PREFIX .. kind .. ':' .. name or PREFIX .. kind end
local call = redis.call

local LOG, LOG_LENGTH = key_of('log'), 10000

local function now()
  local clock = call('TIME')
  return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

-- The last entry of the log: what the reader of this moment knows. "0-0" for none.
local function position()
  local last = call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end

-- Every change ends with this.
local function log(verb, subject, key)
  call('XADD', LOG, 'MAXLEN', LOG_LENGTH, '*', 'verb', verb, 'subject', subject, 'key', key or '',
       'by', ARGV[1], 'from', ARGV[2], 'detail', ARGV[3])
end

local function exists(kind, name) return call('EXISTS', key_of(kind, name)) == 1 end

-- Is there such a group, here or (FIXED is "1") in the configuration? "" is no group.
local function is_group(path, fixed) return path == '' or fixed == '1' or exists('group', path) end

local function join(client, group)
  if group ~= '' then call('ZADD', key_of('members', group), 0, client) end
end

local function leave(client, group)
  if group ~= '' then call('ZREM', key_of('members', group), client) end
end

-- A client may have so many keys. Then those that have been dead for long make room.
local KEYS_EACH, REMEMBERED = 1000, 30 * 24 * 3600 * 1000

local function forget_dead_keys(client, time)
  for _, id in ipairs(call('ZRANGE', key_of('keys', client), 0, -1)) do
    local ends = call('HMGET', key_of('key', id), 'expires', 'revoked')
    local expired, revoked = tonumber(ends[1]), tonumber(ends[2])
    local ended = revoked > 0 and revoked or expired
    if ended > 0 and ended < time - REMEMBERED then
      call('DEL', key_of('key', id))
      call('ZREM', key_of('keys', client), id)
    end
  end
end

-- Add a key to a client. lifetime: 0 for good. Returns why not, if so.
local function add_key(client, id, hash, label, time, lifetime)
  if exists('key', id) then return 'id_taken' end
  local keys = key_of('keys', client)
  if call('ZCARD', keys) >= KEYS_EACH then forget_dead_keys(client, time) end
  if call('ZCARD', keys) >= KEYS_EACH then return 'too_many_keys' end
  call('HSET', key_of('key', id), 'hash', hash, 'client', client, 'label', label, 'created', time,
       'lifetime', lifetime, 'expires', lifetime > 0 and time + lifetime or 0, 'revoked', 0)
  call('ZADD', keys, time, id)
end
