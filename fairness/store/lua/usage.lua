-- What clients use, by the day: UTC, by the server's clock.
--
-- Theory: what a client has used on its last day stands in its own record, which is read and written
-- whenever it uses anything. When a later day begins for it, the day that was is written to a hash of
-- that day and not touched again. So counting costs no command, but one HSET a client and day.
--
-- A client's days only grow: should the clock fall back, it goes on with the day it had. What is
-- given back is taken off the day on which that happens, so a day may be below zero; sums are true.
local DAY_MS = 86400000
local TODAY = math.floor(NOW / DAY_MS)
pool.oldest_day = pool.oldest_day or TODAY - RETENTION + 1

-- day: since 1970; requests: that ended, of those that reached an engine; waited: milliseconds in
-- line until granted. redis_store.py reads it, too.
local USED = '<I4I4i8i8i8dd'

local function new_day()
  return {day = TODAY, requests = 0, input = 0, cached = 0, output = 0, service = 0, waited = 0}
end

-- The record, and where it ends.
local function decode_used(raw, at)
  local day, requests, input, cached, output, service, waited, rest = struct.unpack(USED, raw, at)
  return {day = day, requests = requests, input = input, cached = cached, output = output, service = service,
          waited = waited}, rest
end

local function encode_used(u)
  return struct.pack(USED, u.day, u.requests, u.input, u.cached, u.output, u.service, u.waited)
end

local days = {}
local function used_on(day)
  days[day] = days[day] or records(key_of('usage', day), function() return false end, encode_used)
  return days[day]
end

-- To be added to; the client is written anyway.
local function used_today(client)
  local used = client.used
  if used.day < TODAY then
    if used.day >= pool.oldest_day then used_on(used.day):put(client.name, used) end
    used = new_day()
    client.used = used
  end
  return used
end
