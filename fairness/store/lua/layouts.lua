-- What is kept of a client, of a group, of a request, of a replica's offer and of a lease taken back.

-- A client: always a record, of an unknown one too.
-- counter; service, input, cached, output: used in all; waiting, running: how many; outputs: packed
-- lengths of its last answers (predict.lua); parent: the group it stands in, '/' for none; used: on its
-- last day (usage.lua).
-- redis_store.py reads it, too.
local CLIENT = '<ddi8i8i8I4I4I2c0'

local function decode_client(raw, name)
  if not raw then
    return {name = name, counter = 0, service = 0, input = 0, cached = 0, output = 0, waiting = 0, running = 0, parent = '/',
            used = new_day(), outputs = ''}
  end
  local counter, service, input, cached, output, waiting, running, parent, rest = struct.unpack(CLIENT, raw)
  local used
  used, rest = decode_used(raw, rest)
  return {name = name, counter = counter, service = service, input = input, cached = cached, output = output,
          waiting = waiting, running = running, parent = parent, used = used, outputs = raw:sub(rest)}
end

local function encode_client(c)
  return struct.pack(CLIENT, c.counter, c.service, c.input, c.cached, c.output, c.waiting, c.running,
                     #c.parent, c.parent) .. encode_used(c.used) .. c.outputs
end

-- A group of clients and groups: always a record, too. Its name ends in '/', "org/" or "org/team/".
-- counter, weight: its own, among those it stands with. virtual_time, last_left: of those in it, as
-- the pool's are of those that stand in no group. waiting: how many of them are backlogged; running:
-- leases of its clients. redis_store.py reads it, too.
local GROUP = '<dddI4I4'

local function decode_group(raw, name)
  local group = {name = name, parent = name:match('^(.*/)[^/]*/$') or '/', counter = 0, weight = 1, virtual_time = 0,
                 waiting = 0, running = 0, last_left = ''}
  if raw then
    local rest
    group.counter, group.weight, group.virtual_time, group.waiting, group.running, rest = struct.unpack(GROUP, raw)
    group.last_left = raw:sub(rest)
  end
  return group
end

local function encode_group(g)
  return struct.pack(GROUP, g.counter, g.weight, g.virtual_time, g.waiting, g.running) .. g.last_left
end

-- A request, and its lease if it has one: then `replica` is set, `charged` and what follows mean
-- that lease, and `arrived` is true once the replica has seen it. queued: when it last joined its line.
-- explained: its router keeps its story (explain.lua). held: what it has reserved of limits
-- (limits.lua), '' for nothing. price: how many times its service is what `cost` says; a double of its own,
-- before the replica, where it is not 1. Text may hold any bytes.
local REQUEST = '<BdI8I8I8i4dddi8i8i8I4c0I4c0I2c0'
local WAITS, LEASED, ARRIVED, EXPLAINED, PRICED = 0, 1, 2, 4, 8 -- the last two are added to the others
local PRICE = '<d'

local function decode_request(raw, id)
  if not raw then return false end
  local stage, weight, bytes, seq, attempt, priority, queued, charged, reserved, input, cached, output, client, router, held, rest =
    struct.unpack(REQUEST, raw)
  local price = 1
  if stage >= PRICED then
    stage = stage - PRICED
    price, rest = struct.unpack(PRICE, raw, rest)
  end
  local is_explained = stage >= EXPLAINED
  if is_explained then stage = stage - EXPLAINED end
  return {id = id, explained = is_explained, weight = weight, bytes = bytes, seq = seq, attempt = attempt, priority = priority,
          queued = queued, charged = charged, reserved = reserved, input = input, cached = cached, output = output, client = client, router = router, held = held, price = price,
          replica = stage ~= WAITS and raw:sub(rest) or nil, arrived = stage == ARRIVED}
end

local function encode_request(r)
  local stage = not r.replica and WAITS or r.arrived and ARRIVED or LEASED
  if r.explained then stage = stage + EXPLAINED end
  local price = ''
  if r.price ~= 1 then stage, price = stage + PRICED, struct.pack(PRICE, r.price) end
  return struct.pack(REQUEST, stage, r.weight, r.bytes, r.seq, r.attempt, r.priority, r.queued, r.charged, r.reserved,
                     r.input, r.cached, r.output, #r.client, r.client, #r.router, r.router, #r.held, r.held) .. price .. (r.replica or '')
end

-- A replica's offer; credits: how many grants it takes now.
local OFFER = '<dddd'

local function decode_offer(raw, replica)
  if not raw then return {replica = replica, granted = 0, version = -1, credits = 0} end
  local limit, granted, version, credits, rest = struct.unpack(OFFER, raw)
  return {replica = replica, limit = limit, granted = granted, version = version, credits = credits, url = raw:sub(rest)}
end

local function encode_offer(o) return struct.pack(OFFER, o.limit, o.granted, o.version, o.credits) .. o.url end

local requests = records(key_of('requests'), decode_request, encode_request)
local clients = records(key_of('clients'), decode_client, encode_client)
local groups = records(key_of('groups'), decode_group, encode_group)
local offers = records(key_of('offers'), decode_offer, encode_offer)

-- Leases taken back from a replica -> who pays.
local function decode_void(payer) return payer and {payer = payer} end
local function encode_void(void) return void.payer end
local voids = {}
local function voids_of(replica)
  voids[replica] = voids[replica] or records(key_of('void', replica), decode_void, encode_void)
  return voids[replica]
end
